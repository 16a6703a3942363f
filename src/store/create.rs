//! Makes the description of a data file: every byte is read once, and hashed twice.
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
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::verify::{Observer, PIECE, observed, on_threads, panicked, read_full_at};
use crate::cascade_file::{CascadeFile, FormatError, Geometry};
use crate::hash::{BlockHash, FileHash};

/// The most pieces that are in memory.
const PIECES: u64 = 16;
/// More threads than there are jobs have nothing to do.
const JOBS: usize = 3;

/// Describes the file `data`, in blocks of `block_size` bytes, on `threads` threads.
///
/// # Errors
/// As pread(2); where the block size does not fit the file, where the file changes meanwhile, where there is no
/// memory for the block hashes; [`io::ErrorKind::Interrupted`] where the observer broke it off.
pub fn describe(
    data: &File,
    block_size: u64,
    threads: NonZeroUsize,
    observer: Observer<'_>,
) -> io::Result<CascadeFile> {
    let before = Stamp::of(data)?;
    let geometry = geometry(before.length, block_size)?;
    let mut hashes = Vec::new();
    hashes
        .try_reserve_exact(geometry.blocks() as usize)
        .map_err(|_| io::ErrorKind::OutOfMemory)?;
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
        changed: Condvar::new(),
    };
    let useful = usize::try_from(run.pieces())
        .unwrap_or(usize::MAX)
        .clamp(1, JOBS);
    on_threads(threads.get().min(useful), || run.work())?;
    // A byte beyond the end also gives away the files of /proc, which say that they have none.
    if Stamp::of(data)? != before || read_full_at(data, &mut [0], before.length)? > 0 {
        return Err(changed());
    }
    let (whole, hashes) = run.into_hashes().ok_or_else(panicked)?;
    Ok(CascadeFile::new(geometry, FileHash::finish(whole), hashes))
}

fn geometry(length: u64, block_size: u64) -> io::Result<Geometry> {
    Geometry::new(length, block_size).map_err(|error| {
        let reason = match error {
            FormatError::TooManyBlocks(blocks) => {
                format!(
                    "it would have {blocks} blocks, at most {} are possible",
                    u32::MAX
                )
            }
            error => error.to_string(),
        };
        io::Error::new(io::ErrorKind::InvalidInput, reason)
    })
}

fn changed() -> io::Error {
    io::Error::other("it changed while it was read")
}

/// What a file that stays the same keeps.
#[derive(PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(data: &File) -> io::Result<Self> {
        let metadata = data.metadata()?;
        Ok(Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }
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
    changed: Condvar,
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
                .changed
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
            self.changed.notify_all();
        }
        if hashed > 0 {
            observed(self.observer, hashed)?;
        }
        Ok(())
    }

    /// The hashes, when all is done.
    fn into_hashes(self) -> Option<(Sha256, Vec<BlockHash>)> {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Some((state.whole.tool?, state.blocks.tool?.finish()))
    }
}

/// Ends the run for all threads when it is dropped, also by a panic.
struct Abandon<'a, 'b>(&'a Run<'b>);

impl Drop for Abandon<'_, '_> {
    fn drop(&mut self) {
        self.0.state().failed = true;
        self.0.changed.notify_all();
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

#[cfg(test)]
mod tests {
    use super::super::verify::unobserved;
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::ops::ControlFlow;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        file
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| ((at * at) >> 3) as u8).collect()
    }

    fn naive(bytes: &[u8], block_size: u64) -> CascadeFile {
        let geometry = Geometry::new(bytes.len() as u64, block_size).expect("valid");
        let size = usize::try_from(block_size).unwrap_or(usize::MAX);
        let blocks = bytes.chunks(size).map(BlockHash::of);
        CascadeFile::new(geometry, FileHash::of(bytes), blocks.collect())
    }

    fn threads(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).expect("at least one")
    }

    fn check(content: &[u8], block_size: u64, count: usize) {
        let described = describe(&file_of(content), block_size, threads(count), &unobserved);
        let described = described.expect("readable");
        assert_eq!(described, naive(content, block_size), "{block_size}");
    }

    #[test]
    fn blocks_around_the_size_of_a_piece_are_described() {
        const P: u64 = PIECE as u64;
        let content = bytes(5 * PIECE + 100);
        for block_size in [P - 1, P, P + 1, 2 * P, 2 * P + 63, 5 * P + 100, u64::MAX] {
            check(&content, block_size, 3);
        }
        check(&content[..2 * PIECE], 2 * P, 2);
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_refused() {
        let file = file_of(&bytes(3 * PIECE));
        for length in [3 * PIECE as u64 + 1, PIECE as u64] {
            let change = |_| {
                file.set_len(length).expect("resized");
                ControlFlow::Continue(())
            };
            let error = describe(&file, 65536, threads(2), &change).expect_err("it changed");
            assert_eq!(error.to_string(), "it changed while it was read");
        }
    }

    #[test]
    fn an_observer_can_break_off_without_leaving_a_thread_waiting() {
        for block_size in [1000, 1 << 30] {
            let file = file_of(&bytes(20 * PIECE));
            let stop = |_| ControlFlow::Break(());
            let error = describe(&file, block_size, threads(4), &stop).expect_err("broken off");
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        }
    }

    #[test]
    fn more_block_hashes_than_fit_into_memory_are_an_error() {
        let file = file_of(b"");
        file.set_len(1 << 40).expect("a sparse file");
        let error = describe(&file, 1, threads(1), &unobserved).expect_err("too many blocks");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    proptest! {
        #[test]
        fn the_description_does_not_depend_on_the_threads(
            length in 0usize..5000, block_size in 1u64..700, count in 1usize..5,
        ) {
            check(&bytes(length), block_size, count);
        }
    }
}
