//! Two hashes of every byte, on as many threads as are of use.
//!
//! The hash of the whole file is serial, and so it bounds the speed; all else is to cost no time beside it. There are
//! three jobs: to read the file, to hash its blocks, and to hash the whole. Each goes through the file in order, piece
//! by piece, and is done by one thread at a time: by whichever is free. So no core is idle while there is something to
//! do, hardly ever does one wait for another, and memory is the same whatever the sizes of file and block.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::changed;
use crate::cascade_file::Geometry;
use crate::hash::{BlockHash, FileHash};
use crate::store::verify::{Observer, PIECE, observed, on_threads, panicked, read_full_at};

/// The most pieces that are in memory.
const PIECES: u64 = 16;
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
        length: geometry.length(),
        observer,
        state: Mutex::new(State {
            read: Job::new(()),
            blocks: Job::new(BlockHasher::new(geometry, hashes)),
            whole: Job::new(Sha256::new()),
            pieces: VecDeque::new(),
            spare: Vec::new(),
            waiting: 0,
            failed: false,
        }),
        wake: Condvar::new(),
    };
    let useful = usize::try_from(run.pieces())
        .unwrap_or(usize::MAX)
        .clamp(1, JOBS);
    on_threads(threads.get().min(useful), || run.work())?;
    run.into_hashes().ok_or_else(panicked)
}

/// A job, which one thread at a time does for one piece after the other.
struct Job<T> {
    /// The piece that is next.
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

    /// Takes the tool, if nobody has it and the next piece is one before `end`.
    fn take(&mut self, end: u64) -> Option<T> {
        self.tool.take_if(|_| self.next < end)
    }

    /// The next piece is done.
    fn put(&mut self, tool: T) {
        self.tool = Some(tool);
        self.next += 1;
    }
}

/// What the threads of one run share.
struct Run<'a> {
    data: &'a File,
    length: u64,
    observer: Observer<'a>,
    state: Mutex<State>,
    /// A thread that found nothing to do may find something now.
    wake: Condvar,
}

struct State {
    read: Job<()>,
    blocks: Job<BlockHasher>,
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

/// Something to be done for one piece.
enum Task {
    Read(u64, Vec<u8>),
    Blocks(Arc<Vec<u8>>, BlockHasher),
    Whole(Arc<Vec<u8>>, Sha256),
}

impl State {
    /// The next task. What everything waits for comes first; and as long as there is room it is read ahead, so that a
    /// thread that becomes free finds something to hash.
    fn take(&mut self, pieces: u64) -> Option<Task> {
        let read = self.read.next;
        if let Some(hasher) = self.whole.take(read) {
            return Some(Task::Whole(self.piece(self.whole.next)?, hasher));
        }
        let room = self.whole.next.min(self.blocks.next) + PIECES;
        if self.read.take(pieces.min(room)).is_some() {
            return Some(Task::Read(read, self.spare.pop().unwrap_or_default()));
        }
        let hasher = self.blocks.take(read)?;
        Some(Task::Blocks(self.piece(self.blocks.next)?, hasher))
    }

    /// A piece that was read and is not done.
    fn piece(&self, index: u64) -> Option<Arc<Vec<u8>>> {
        let first = self.read.next - self.pieces.len() as u64;
        let place = usize::try_from(index.checked_sub(first)?).ok()?;
        self.pieces.get(place).cloned()
    }

    /// Takes back the memory of pieces that both hashes are done with.
    fn collect(&mut self) {
        let done = self.whole.next.min(self.blocks.next);
        while self.read.next - (self.pieces.len() as u64) < done
            && let Some(piece) = self.pieces.pop_front()
        {
            self.spare.extend(Arc::into_inner(piece));
        }
    }

    fn is_done(&self, pieces: u64) -> bool {
        self.failed || self.whole.next == pieces && self.blocks.next == pieces
    }
}

impl Run<'_> {
    fn pieces(&self) -> u64 {
        self.length.div_ceil(PIECE as u64)
    }

    /// Does what there is to be done until all is. Whoever fails ends the others, which may be waiting for it.
    fn work(&self) -> io::Result<()> {
        let abandon = Abandon(self);
        while let Some(task) = self.next_task() {
            self.perform(task)?;
        }
        std::mem::forget(abandon);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do; nothing when there will be nothing more.
    fn next_task(&self) -> Option<Task> {
        let pieces = self.pieces();
        let mut state = self.state();
        loop {
            if state.is_done(pieces) {
                return None;
            }
            if let Some(task) = state.take(pieces) {
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

    fn perform(&self, task: Task) -> io::Result<()> {
        let mut hashed = 0;
        let mut state = match task {
            Task::Read(index, mut piece) => {
                let start = index * PIECE as u64;
                piece.resize((self.length - start).min(PIECE as u64) as usize, 0);
                if read_full_at(self.data, &mut piece, start)? < piece.len() {
                    return Err(changed());
                }
                let mut state = self.state();
                state.pieces.push_back(Arc::new(piece));
                state.read.put(());
                state
            }
            Task::Blocks(piece, mut hasher) => {
                hasher.update(&piece);
                drop(piece);
                let mut state = self.state();
                state.blocks.put(hasher);
                state
            }
            Task::Whole(piece, mut hasher) => {
                hasher.update(piece.as_slice());
                hashed = piece.len();
                drop(piece);
                let mut state = self.state();
                state.whole.put(hasher);
                state
            }
        };
        state.collect();
        let somebody_waits = state.waiting > 0;
        drop(state);
        if somebody_waits {
            self.wake.notify_all();
        }
        if hashed > 0 {
            observed(self.observer, hashed)?;
        }
        Ok(())
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

/// The hashes of the blocks, in order.
struct BlockHasher {
    block_size: u64,
    /// Bytes that the block lacks that has begun.
    lacks: u64,
    begun: Sha256,
    hashes: Vec<BlockHash>,
}

impl BlockHasher {
    /// `hashes` has room for all.
    fn new(geometry: Geometry, hashes: Vec<BlockHash>) -> Self {
        Self {
            block_size: geometry.block_size(),
            lacks: geometry.block_size(),
            begun: Sha256::new(),
            hashes,
        }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (part, others) = bytes.split_at(self.lacks.min(bytes.len() as u64) as usize);
            self.begun.update(part);
            self.lacks -= part.len() as u64;
            if self.lacks == 0 {
                self.end_block();
            }
            bytes = others;
        }
    }

    fn end_block(&mut self) {
        let begun = std::mem::take(&mut self.begun);
        self.hashes.push(BlockHash::finish(begun));
        self.lacks = self.block_size;
    }

    fn finish(mut self) -> Vec<BlockHash> {
        if self.lacks < self.block_size {
            self.end_block();
        }
        self.hashes
    }
}
