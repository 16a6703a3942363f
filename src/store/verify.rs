//! Checks a data file against its cascade file, on many threads.
//!
//! For a process that does not fork, or a forked leaf: a process that forks has no threads.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use sha2::{Digest, Sha256};

use super::bitmap::Bitmap;
use super::pieces::{Observer, PIECE, hash_range, observed, on_threads, read_full_at};
use crate::cascade_file::CascadeFile;
use crate::hash::{BlockHash, update_both};

/// Checks every block of `data` on `threads` threads and adds each that is right to `present`, at once.
///
/// A block that lies beyond the end of the file is not right; a file may shrink or grow meanwhile. A block that the
/// device cannot read is missing, and is handed to `unreadable` with the error. Returns whether there were such errors,
/// those that passed included.
///
/// # Errors
/// As pread(2), but for those of the device; and [`io::ErrorKind::Interrupted`] where the observer broke it off.
pub fn verify(
    data: &File,
    cascade: &CascadeFile,
    present: &Bitmap,
    threads: NonZeroUsize,
    observer: Observer<'_>,
    unreadable: Unreadable<'_>,
) -> io::Result<bool> {
    let geometry = cascade.geometry();
    let length = data.metadata()?.len();
    // Blocks that cannot be whole are not worth a look: there may be four thousand million of them.
    let reachable = if length >= geometry.length() {
        u64::from(geometry.blocks())
    } else {
        length / geometry.block_size()
    };
    let batch = (PIECE as u64 / geometry.block_size()).max(1);
    let run = Run {
        data,
        cascade,
        present,
        observer,
        unreadable,
        met_errors: AtomicBool::new(false),
        next: AtomicU64::new(0),
        reachable,
        batch,
        few: 2 * threads.get() as u64,
    };
    let useful = usize::try_from(reachable.div_ceil(batch)).unwrap_or(usize::MAX);
    on_threads(threads.get().min(useful), || run.work())?;
    Ok(run.met_errors.into_inner())
}

/// Called by any thread with a block that the device cannot read, and why.
pub type Unreadable<'a> = &'a (dyn Fn(u32, &io::Error) + Sync);

/// Whether a part of a file cannot be read, and others may be: the disk is damaged there, or the server of the mount has
/// lost it.
pub fn is_of_device(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(
            Errno::EIO
                | Errno::EBADMSG
                | Errno::ENODATA
                | Errno::EUCLEAN
                | Errno::EREMOTEIO
                | Errno::ENXIO
                | Errno::ETIMEDOUT
        )
    )
}

/// What the threads of one verification share.
struct Run<'a> {
    data: &'a File,
    cascade: &'a CascadeFile,
    present: &'a Bitmap,
    observer: Observer<'a>,
    unreadable: Unreadable<'a>,
    /// Whether the device had an error.
    met_errors: AtomicBool,
    /// The first block that nobody has taken.
    next: AtomicU64,
    /// Blocks from this one on lie beyond the end of the file.
    reachable: u64,
    /// Blocks that fit into a piece; one, where not even that does.
    batch: u64,
    /// So many blocks are too few for a thread to take two.
    few: u64,
}

impl Run<'_> {
    /// Takes and checks blocks until none is left.
    fn work(&self) -> io::Result<()> {
        let mut buffers = [vec![0; PIECE], vec![0; PIECE]];
        let result = self.work_with(&mut buffers);
        if result.is_err() {
            self.next.store(self.reachable, Ordering::Relaxed);
        }
        result
    }

    fn work_with(&self, buffers: &mut [Vec<u8>; 2]) -> io::Result<()> {
        while let Some(blocks) = self.take() {
            let together = match blocks.end - blocks.start {
                1 => self.check_one(blocks.start, &mut buffers[0]),
                _ if self.batch == 1 => self.check_two(blocks.start, buffers),
                _ => self.check_small(blocks.clone(), &mut buffers[0]),
            };
            match together {
                Err(error) if is_of_device(&error) => self.check_each(blocks, buffers)?,
                checked => checked?,
            }
        }
        Ok(())
    }

    /// Checks blocks one by one, of which the device cannot read some.
    fn check_each(&self, blocks: Range<u32>, buffers: &mut [Vec<u8>; 2]) -> io::Result<()> {
        self.met_errors.store(true, Ordering::Relaxed);
        for block in blocks {
            match self.check_one(block, &mut buffers[0]) {
                Err(error) if is_of_device(&error) => (self.unreadable)(block, &error),
                checked => checked?,
            }
        }
        Ok(())
    }

    /// The blocks that this thread does next: as many as fit into a piece; of larger ones two, which are hashed
    /// together, as long as there are enough for all.
    fn take(&self) -> Option<Range<u32>> {
        let left = self
            .reachable
            .saturating_sub(self.next.load(Ordering::Relaxed));
        let count = match self.batch {
            1 if left > self.few => 2,
            batch => batch,
        };
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let last = first.saturating_add(count).min(self.reachable);
        // Block numbers have 32 bits: the geometry refuses more.
        (first < last).then_some(first as u32..last as u32)
    }

    /// Checks one block that may be larger than the buffer.
    fn check_one(&self, block: u32, buffer: &mut [u8]) -> io::Result<()> {
        let mut hasher = Sha256::new();
        let range = self.range(block);
        match hash_range(self.data, range, &mut hasher, buffer, self.observer) {
            Ok(()) => self.judge(block, BlockHash::finish(hasher)),
            // The file has shrunk.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Checks this block and the next, which may be larger than the buffers.
    fn check_two(&self, block: u32, [these, those]: &mut [Vec<u8>; 2]) -> io::Result<()> {
        let (mut this, mut that) = (Sha256::new(), Sha256::new());
        let (first, second) = (self.range(block), self.range(block + 1));
        // No block is longer than one before it.
        for done in (0..first.end - first.start).step_by(PIECE) {
            let these = self.read_piece(&first, done, these)?;
            let those = self.read_piece(&second, done, those)?;
            update_both((&mut this, these), (&mut that, those));
            observed(self.observer, these.len() + those.len())?;
        }
        // Of a file that has shrunk less was hashed, which is as wrong as can be.
        self.judge(block, BlockHash::finish(this));
        self.judge(block + 1, BlockHash::finish(that));
        Ok(())
    }

    /// What comes next of a block of which so much is done; less, or nothing, where the block or the file ends.
    fn read_piece<'b>(
        &self,
        block: &Range<u64>,
        done: u64,
        buffer: &'b mut [u8],
    ) -> io::Result<&'b [u8]> {
        let start = block.start.saturating_add(done).min(block.end);
        let length = (block.end - start).min(buffer.len() as u64) as usize;
        let read = read_full_at(self.data, &mut buffer[..length], start)?;
        Ok(&buffer[..read])
    }

    /// Checks blocks which fit into the buffer together.
    fn check_small(&self, blocks: Range<u32>, buffer: &mut [u8]) -> io::Result<()> {
        let (start, end) = (
            self.range(blocks.start).start,
            self.range(blocks.end - 1).end,
        );
        let buffer = &mut buffer[..(end - start) as usize];
        let read = read_full_at(self.data, buffer, start)?;
        // A block's size fits: the buffer is larger.
        let block_size = self.cascade.geometry().block_size() as usize;
        for (first, bytes) in blocks.step_by(2).zip(buffer[..read].chunks(2 * block_size)) {
            let (these, those) = bytes.split_at(block_size.min(bytes.len()));
            let (mut this, mut that) = (Sha256::new(), Sha256::new());
            update_both((&mut this, these), (&mut that, those));
            self.judge(first, BlockHash::finish(this));
            if !those.is_empty() {
                self.judge(first + 1, BlockHash::finish(that));
            }
        }
        observed(self.observer, read)
    }

    fn range(&self, block: u32) -> Range<u64> {
        self.cascade.geometry().range(block).unwrap_or_default()
    }

    fn judge(&self, block: u32, hash: BlockHash) {
        if self.cascade.block_hashes().get(block as usize) == Some(&hash) {
            self.present.set(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pieces::{hash_file, unobserved};
    use super::*;
    use crate::cascade_file::Geometry;
    use crate::hash::FileHash;
    use proptest::prelude::*;
    use std::io::Write;
    use std::ops::ControlFlow;

    fn describe(bytes: &[u8], block_size: u64) -> CascadeFile {
        let geometry = Geometry::new(bytes.len() as u64, block_size).expect("valid");
        let blocks = bytes.chunks(block_size as usize).map(BlockHash::of);
        CascadeFile::new(geometry, FileHash::of(bytes), blocks.collect())
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        file
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| ((at * at) >> 3) as u8).collect()
    }

    /// Verifies a file of which each block can be read.
    fn check(
        data: &File,
        cascade: &CascadeFile,
        present: &Bitmap,
        threads: NonZeroUsize,
        observer: Observer<'_>,
    ) -> io::Result<()> {
        let unreadable = |block: u32, error: &io::Error| panic!("block {block}: {error}");
        verify(data, cascade, present, threads, observer, &unreadable).map(drop)
    }

    const THREADS: NonZeroUsize = NonZeroUsize::new(3).expect("three");

    #[test]
    fn blocks_larger_than_a_piece_are_checked() {
        let mut content = bytes(3 * PIECE + 7);
        let cascade = describe(&content, PIECE as u64 + 1);
        content[PIECE + 1] ^= 1;
        let present = Bitmap::new(3).expect("memory");
        check(&file_of(&content), &cascade, &present, THREADS, &unobserved).expect("readable");
        assert_eq!(present.to_bytes(), [0b1010_0000]);
    }

    #[test]
    fn large_blocks_that_are_checked_two_at_once_are_told_apart() {
        let mut content = bytes(19 * PIECE + 7);
        let cascade = describe(&content, PIECE as u64 + 1);
        content[PIECE + 1] ^= 1;
        content[4 * PIECE] ^= 1;
        let check_content = |content: &[u8]| {
            let present = Bitmap::new(cascade.geometry().blocks()).expect("memory");
            check(&file_of(content), &cascade, &present, THREADS, &unobserved).expect("readable");
            present.to_bytes()
        };
        assert_eq!(check_content(&content), [0b1010_1111, 0xFF, 0b1110_0000]);
        content.truncate(7 * PIECE);
        assert_eq!(
            check_content(&content),
            [0b1010_1100, 0, 0],
            "the rest is missing"
        );
    }

    #[test]
    fn a_huge_description_of_a_short_file_takes_no_time() {
        let geometry = Geometry::new(u64::MAX, u64::MAX).expect("one block");
        let cascade = CascadeFile::new(geometry, FileHash::of(b""), vec![BlockHash::of(b"")]);
        let present = Bitmap::new(1).expect("memory");
        check(&file_of(b"x"), &cascade, &present, THREADS, &unobserved).expect("readable");
        assert_eq!(present.count(), 0);
    }

    #[test]
    fn an_observer_counts_all_bytes_and_can_break_off() {
        let content = bytes(5 * PIECE + 1);
        let (cascade, file) = (describe(&content, 4096), file_of(&content));
        let present = Bitmap::new(cascade.geometry().blocks()).expect("memory");
        let done = AtomicU64::new(0);
        let count = |bytes| {
            done.fetch_add(bytes, Ordering::Relaxed);
            ControlFlow::Continue(())
        };
        check(&file, &cascade, &present, THREADS, &count).expect("readable");
        assert_eq!(done.into_inner(), content.len() as u64);
        let stop = |_| ControlFlow::Break(());
        let error = check(&file, &cascade, &present, THREADS, &stop).expect_err("broken off");
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert_eq!(
            hash_file(&file, content.len() as u64, &unobserved).expect("readable"),
            cascade.file_hash()
        );
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let directory = File::open("/").expect("the root");
        // It has a length, unlike special files, and so the first block is looked at.
        let cascade = describe(b"x", 1);
        let present = Bitmap::new(1).expect("memory");
        assert!(check(&directory, &cascade, &present, THREADS, &unobserved).is_err());
    }

    proptest! {
        #[test]
        fn exactly_the_blocks_that_agree_are_found(
            length in 0usize..5000, block_size in 1u64..700, wrong in 0usize..5000, cut in 0usize..6000,
            threads in 1usize..5,
        ) {
            let mut content = bytes(length);
            let cascade = describe(&content, block_size);
            if let Some(byte) = content.get_mut(wrong) {
                *byte ^= 0x80;
            }
            content.resize(cut, 0);
            let geometry = cascade.geometry();
            let present = Bitmap::new(geometry.blocks()).expect("memory");
            let threads = NonZeroUsize::new(threads).expect("at least one");
            check(&file_of(&content), &cascade, &present, threads, &unobserved).expect("readable");
            for block in 0..geometry.blocks() {
                let range = geometry.range(block).expect("a block");
                let range = range.start as usize..range.end as usize;
                let right = content.get(range).map(BlockHash::of)
                    == Some(cascade.block_hashes()[block as usize]);
                prop_assert_eq!(present.get(block), right);
            }
        }
    }
}
