//! Makes the description of a data file: every byte is read once, and hashed twice.
//!
//! The hash of the whole file is serial, and so it bounds the speed; the block hashes are to cost no time beside it.
//! The file is cut into pieces. A thread takes the next piece, reads it, hashes it for its block, and, when all
//! earlier pieces have had their turn, for the whole file, while the bytes are still in its core's cache. No data
//! move between threads, only turns do, so that the threads balance by themselves whatever the number of cores, and
//! memory is a piece per thread whatever the sizes of file and block.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::verify::{Observer, PIECE, observed, on_threads, read_full_at};
use crate::cascade_file::{CascadeFile, FormatError, Geometry};
use crate::hash::{BlockHash, FileHash};

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
        cut: Cut::new(geometry),
        observer,
        next: AtomicU64::new(0),
        block: Turns::new(Sha256::new(), threads),
        whole: Turns::new((Sha256::new(), hashes), threads),
    };
    let pieces = usize::try_from(geometry.length() / run.cut.piece).unwrap_or(usize::MAX);
    on_threads(threads.get().min(pieces.max(1)), || run.work())?;
    // A byte beyond the end also gives away the files of /proc, which say that they have none.
    if Stamp::of(data)? != before || read_full_at(data, &mut [0], before.length)? > 0 {
        return Err(changed());
    }
    let (whole, hashes) = run.whole.into_inner();
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

/// How a file is cut into pieces: several whole blocks, or a part of one.
#[derive(Debug, Clone, Copy)]
struct Cut {
    geometry: Geometry,
    /// Bytes of a piece, at most [`PIECE`]; the last of a block, or of the file, may have fewer.
    piece: u64,
    /// Pieces of a full block; 1 where a piece has whole blocks.
    per_block: u64,
}

impl Cut {
    fn new(geometry: Geometry) -> Self {
        let (size, most) = (geometry.block_size(), PIECE as u64);
        if size <= most {
            return Self {
                geometry,
                piece: most / size * size,
                per_block: 1,
            };
        }
        // Equal parts, in multiples of what SHA-256 takes at a time.
        let piece = size.div_ceil(size.div_ceil(most)).next_multiple_of(64);
        Self {
            geometry,
            piece,
            per_block: size.div_ceil(piece),
        }
    }

    /// The bytes of a piece; nothing beyond the end of the file.
    fn range(&self, index: u64) -> Option<Range<u64>> {
        let (start, limit) = if self.per_block == 1 {
            (index.checked_mul(self.piece)?, self.geometry.length())
        } else {
            let block = u32::try_from(index / self.per_block).ok()?;
            let range = self.geometry.range(block)?;
            let offset = index % self.per_block * self.piece;
            (range.start.checked_add(offset)?, range.end)
        };
        (start < limit).then(|| start..start.saturating_add(self.piece).min(limit))
    }

    /// Whether a piece that ends here ends a block.
    fn ends_block(&self, end: u64) -> bool {
        end == self.geometry.length() || end.is_multiple_of(self.geometry.block_size())
    }
}

/// What the threads of one run share.
struct Run<'a> {
    data: &'a File,
    cut: Cut,
    observer: Observer<'a>,
    /// The first piece that nobody has taken.
    next: AtomicU64,
    /// The hash of the block that is being read, where a block has several pieces.
    block: Turns<Sha256>,
    /// The hash of the whole file, and those of the blocks in order.
    whole: Turns<(Sha256, Vec<BlockHash>)>,
}

impl Run<'_> {
    /// Takes and hashes pieces until none is left. Whoever fails ends the others, which may be waiting for it.
    fn work(&self) -> io::Result<()> {
        let abandon = Abandon(self);
        self.hash_pieces()?;
        std::mem::forget(abandon);
        Ok(())
    }

    fn hash_pieces(&self) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        let mut hashes = Vec::new();
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(range) = self.cut.range(index) else {
                return Ok(());
            };
            let piece = &mut buffer[..(range.end - range.start) as usize];
            if read_full_at(self.data, piece, range.start)? < piece.len() {
                return Err(changed());
            }
            hashes.clear();
            let done = self.hash_blocks(index, piece, range.end, &mut hashes);
            let done = done.and_then(|()| {
                self.whole.take(index, |(whole, all)| {
                    whole.update(&*piece);
                    all.extend_from_slice(&hashes);
                })
            });
            if done.is_none() {
                // Another thread has failed and says why.
                return Ok(());
            }
            observed(self.observer, piece.len())?;
        }
    }

    /// Hashes a piece for its block or blocks, and appends the hashes of those that end in it.
    fn hash_blocks(
        &self,
        index: u64,
        piece: &[u8],
        end: u64,
        hashes: &mut Vec<BlockHash>,
    ) -> Option<()> {
        if self.cut.per_block == 1 {
            // A block is no larger than a piece, so that its size fits.
            let blocks = piece.chunks(self.cut.geometry.block_size() as usize);
            hashes.extend(blocks.map(BlockHash::of));
            return Some(());
        }
        self.block.take(index, |hasher| {
            hasher.update(piece);
            if self.cut.ends_block(end) {
                hashes.push(BlockHash::finish(std::mem::take(hasher)));
            }
        })
    }
}

/// Ends the run for all threads when it is dropped, also by a panic.
struct Abandon<'a, 'b>(&'a Run<'b>);

impl Drop for Abandon<'_, '_> {
    fn drop(&mut self) {
        self.0.block.abandon();
        self.0.whole.abandon();
    }
}

/// Something on which threads work in turn: turn 0, 1, and so on.
struct Turns<T> {
    state: Mutex<Turn<T>>,
    /// Each thread has one turn outstanding at most, so that these serve one waiting thread each.
    wake: Vec<Condvar>,
}

struct Turn<T> {
    /// Whose turn it is; nothing when the work was abandoned.
    now: Option<u64>,
    value: T,
}

impl<T> Turns<T> {
    /// For so many threads.
    fn new(value: T, threads: NonZeroUsize) -> Self {
        Self {
            state: Mutex::new(Turn {
                now: Some(0),
                value,
            }),
            wake: (0..threads.get()).map(|_| Condvar::new()).collect(),
        }
    }

    fn condvar(&self, turn: u64) -> &Condvar {
        &self.wake[(turn % self.wake.len() as u64) as usize]
    }

    /// Waits for this turn and takes it; nothing when the work was abandoned.
    fn take<R>(&self, turn: u64, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self
            .condvar(turn)
            .wait_while(state, |state| state.now.is_some_and(|now| now != turn))
            .unwrap_or_else(PoisonError::into_inner);
        let now = state.now?;
        let result = work(&mut state.value);
        state.now = Some(now + 1);
        drop(state);
        self.condvar(now + 1).notify_one();
        Some(result)
    }

    fn abandon(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .now = None;
        self.wake.iter().for_each(Condvar::notify_all);
    }

    fn into_inner(self) -> T {
        self.state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .value
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

        #[test]
        fn the_pieces_cover_the_file_and_never_cross_a_block_that_has_several(
            length in 1u64..40 << 20, block_size in 1u64..20 << 20,
        ) {
            let cut = Cut::new(Geometry::new(length, block_size).expect("valid"));
            let mut end = 0;
            for range in (0..).map_while(|index| cut.range(index)) {
                prop_assert_eq!(range.start, end);
                prop_assert!(range.end - range.start <= PIECE as u64);
                let block = range.start / block_size;
                prop_assert!(cut.per_block == 1 || (range.end - 1) / block_size == block);
                end = range.end;
            }
            prop_assert_eq!(end, length);
        }
    }
}
