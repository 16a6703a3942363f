//! Two hashes of every byte, on as many threads as are of use.
//!
//! The hash of the whole file is serial, and so it bounds the speed; all else is to cost no time beside it. There are
//! three jobs: to read the file, to hash its blocks, and to hash the whole. Each goes through the file piece by piece,
//! and is done by one thread at a time: by whichever is free. So no core is idle while there is something to do, hardly
//! ever does one wait for another, and memory is bounded whatever the sizes of file and block. Reading and the hashes
//! of blocks, of two at once ([`super::pairs`]), take together as long as the hash of the whole: two cores are busy.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::changed;
use super::pairs::{BlockHasher, Division};
use crate::cascade_file::Geometry;
use crate::hash::{BlockHash, FileHash};
use crate::store::pieces::{Observer, observed, on_threads, panicked, read_full_at};

/// The hash of the whole has at least so many pieces before it, as far as there is room.
const AHEAD: u64 = 2;
/// More threads than there are jobs have nothing to do.
const JOBS: usize = 3;

/// Hashes the file and its blocks. `hashes` has room for all.
///
/// # Errors
/// As [`super::describe`].
pub(super) fn hash(
    data: &File,
    geometry: Geometry,
    hashes: Vec<BlockHash>,
    threads: NonZeroUsize,
    observer: Observer<'_>,
) -> io::Result<(FileHash, Vec<BlockHash>)> {
    let run = Run {
        data,
        division: Division::new(geometry),
        observer,
        state: Mutex::new(State {
            read: Job::new(()),
            blocks: Job::new(Box::new(BlockHasher::new(geometry, hashes))),
            whole: Job::new(Sha256::new()),
            pieces: VecDeque::new(),
            spare: Vec::new(),
            waiting: 0,
            failed: false,
        }),
        wake: Condvar::new(),
    };
    let useful = usize::try_from(run.division.pieces())
        .unwrap_or(usize::MAX)
        .clamp(1, JOBS);
    on_threads(threads.get().min(useful), || run.work())?;
    run.into_hashes().ok_or_else(panicked)
}

/// A job, which one thread at a time does task by task: a task is a piece, or two for the hashes of blocks.
struct Job<T> {
    /// The task that is next.
    next: u64,
    /// What the job is done with; nothing while a thread is at it.
    tool: Option<T>,
}

impl<T> Job<T> {
    fn new(tool: T) -> Self {
        Self {
            next: 0,
            tool: Some(tool),
        }
    }

    /// The next task is done.
    fn put(&mut self, tool: T) {
        self.tool = Some(tool);
        self.next += 1;
    }
}

/// What the threads of one run share.
struct Run<'a> {
    data: &'a File,
    division: Division,
    observer: Observer<'a>,
    state: Mutex<State>,
    /// A thread that found nothing to do may find something now.
    wake: Condvar,
}

struct State {
    read: Job<()>,
    blocks: Job<Box<BlockHasher>>,
    whole: Job<Sha256>,
    /// The pieces that were read and are still to be hashed, the last of them the one before `read.next`.
    pieces: VecDeque<Arc<Vec<u8>>>,
    /// Memory of pieces that are done.
    spare: Vec<Vec<u8>>,
    /// Threads that wait.
    waiting: u32,
    /// A thread has failed, or was broken off: the others end.
    failed: bool,
}

/// Something to be done.
enum Task {
    Read(u64, Vec<u8>),
    Blocks(Arc<Vec<u8>>, Option<Arc<Vec<u8>>>, Box<BlockHasher>),
    Whole(Arc<Vec<u8>>, Sha256),
}

/// A task that is done.
enum Done {
    Read(Vec<u8>),
    Blocks(Box<BlockHasher>),
    Whole(Sha256),
}

/// What a thread could do now.
enum Choice {
    Read,
    Blocks,
    Whole,
}

impl State {
    /// What is to be done next. Everything waits for the hash of the whole: it shall never lack pieces, and goes on
    /// before all else. What is left of a core hashes blocks, and reads ahead where it can do nothing else, but not for
    /// the sake of a piece: who waits for room sleeps until there is some.
    fn choose(&self, division: &Division) -> Option<Choice> {
        let (read, whole) = (self.read.next, self.whole.next);
        let (first, second) = division.task(self.blocks.next);
        let wanted = second.unwrap_or(first);
        let end = self.done(division) + division.window();
        let room = division.pieces().min(end).saturating_sub(read);
        let may_read = self.read.tool.is_some() && room > 0;
        if may_read && read - whole < AHEAD {
            Some(Choice::Read)
        } else if self.whole.tool.is_some() && whole < read {
            Some(Choice::Whole)
        } else if self.blocks.tool.is_some() && wanted < read {
            Some(Choice::Blocks)
        } else if may_read && (end - read) * 4 >= division.window() {
            Some(Choice::Read)
        } else {
            None
        }
    }

    fn take(&mut self, division: &Division) -> Option<Task> {
        match self.choose(division)? {
            Choice::Read => {
                self.read.tool.take()?;
                let memory = self.spare.pop().unwrap_or_default();
                Some(Task::Read(self.read.next, memory))
            }
            Choice::Blocks => {
                let (first, second) = division.task(self.blocks.next);
                let second = second.and_then(|second| self.piece(second));
                Some(Task::Blocks(
                    self.piece(first)?,
                    second,
                    self.blocks.tool.take()?,
                ))
            }
            Choice::Whole => {
                let piece = self.piece(self.whole.next)?;
                Some(Task::Whole(piece, self.whole.tool.take()?))
            }
        }
    }

    /// Takes back a tool, and the memory of pieces that both hashes are done with.
    fn put(&mut self, done: Done, division: &Division) {
        match done {
            Done::Read(piece) => {
                self.pieces.push_back(Arc::new(piece));
                self.read.put(());
            }
            Done::Blocks(hasher) => self.blocks.put(hasher),
            Done::Whole(hasher) => self.whole.put(hasher),
        }
        let done = self.done(division);
        while self.read.next - (self.pieces.len() as u64) < done
            && let Some(piece) = self.pieces.pop_front()
        {
            self.spare.extend(Arc::into_inner(piece));
        }
    }

    /// No piece before this one is wanted any more.
    fn done(&self, division: &Division) -> u64 {
        self.whole.next.min(division.done_after(self.blocks.next))
    }

    /// A piece that was read and is not done.
    fn piece(&self, index: u64) -> Option<Arc<Vec<u8>>> {
        let first = self.read.next - self.pieces.len() as u64;
        let place = usize::try_from(index.checked_sub(first)?).ok()?;
        self.pieces.get(place).cloned()
    }

    fn is_over(&self, division: &Division) -> bool {
        self.failed || self.done(division) == division.pieces()
    }
}

impl Run<'_> {
    /// Does what there is to be done until all is. Whoever fails ends the others, which may be waiting for it.
    fn work(&self) -> io::Result<()> {
        let abandon = Abandon(self);
        let mut done = None;
        while let Some(task) = self.next_task(done) {
            done = Some(self.perform(task)?);
        }
        std::mem::forget(abandon);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands in what was done and waits for something to do; nothing when there will be nothing more.
    fn next_task(&self, done: Option<Done>) -> Option<Task> {
        let mut state = self.state();
        if let Some(done) = done {
            state.put(done, &self.division);
        }
        loop {
            if state.is_over(&self.division) {
                self.wake.notify_all();
                return None;
            }
            if let Some(task) = state.take(&self.division) {
                // To wake a thread costs time, and is done only where that thread will find something.
                if state.waiting > 0 && state.choose(&self.division).is_some() {
                    drop(state);
                    self.wake.notify_one();
                }
                return Some(task);
            }
            state.waiting += 1;
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    fn perform(&self, task: Task) -> io::Result<Done> {
        match task {
            Task::Read(index, mut piece) => {
                let range = self.division.range(index);
                piece.resize((range.end - range.start) as usize, 0);
                if read_full_at(self.data, &mut piece, range.start)? < piece.len() {
                    return Err(changed());
                }
                Ok(Done::Read(piece))
            }
            Task::Blocks(first, second, mut hasher) => {
                hasher.update(&first, second.as_deref().map_or(&[], Vec::as_slice));
                Ok(Done::Blocks(hasher))
            }
            Task::Whole(piece, mut hasher) => {
                hasher.update(piece.as_slice());
                observed(self.observer, piece.len())?;
                Ok(Done::Whole(hasher))
            }
        }
    }

    /// The hashes, when all is done.
    fn into_hashes(self) -> Option<(FileHash, Vec<BlockHash>)> {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let whole = FileHash::finish(state.whole.tool?);
        Some((whole, state.blocks.tool?.finish()))
    }
}

/// Ends the run for all threads when it is dropped, also by a panic.
struct Abandon<'a, 'b>(&'a Run<'b>);

impl Drop for Abandon<'_, '_> {
    fn drop(&mut self) {
        self.0.state().failed = true;
        self.0.wake.notify_all();
    }
}
