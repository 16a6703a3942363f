//! Makes the description of a data file: every byte is read once, and hashed twice.
//!
//! How the threads share the work, [`jobs`] says.

mod jobs;
mod pairs;

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::time::SystemTime;

use super::pieces::{Observer, read_full_at};
use crate::cascade_file::{CascadeFile, FormatError, Geometry};

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
    let (whole, hashes) = jobs::hash(data, geometry, hashes, threads, observer)?;
    // A byte beyond the end also gives away the files of /proc, which say that they have none.
    if Stamp::of(data)? != before || read_full_at(data, &mut [0], before.length)? > 0 {
        return Err(changed());
    }
    Ok(CascadeFile::new(geometry, whole, hashes))
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

#[cfg(test)]
mod tests {
    use super::super::pieces::{PIECE, unobserved};
    use super::*;
    use crate::hash::{BlockHash, FileHash};
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
        for block_size in [
            1000,
            P / 2,
            P - 1,
            P,
            P + 1,
            2 * P,
            2 * P + 63,
            5 * P + 100,
            u64::MAX,
        ] {
            for count in [1, 3] {
                check(&content, block_size, count);
            }
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
