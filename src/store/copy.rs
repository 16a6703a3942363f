//! Copies what agrees from a file that is to be replaced to the part that will replace it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::fcntl::copy_file_range;

use super::bitmap::Bitmap;
use super::pieces::{PIECE, read_full_at};
use super::verify::is_of_device;
use crate::cascade_file::Geometry;

/// Copies the blocks of `from` that are in `right` to the same places of `to`. They have to be verified there: the file
/// may change while it is copied.
///
/// Where both lie in one file system that can, they share the blocks on the disk from then on: copy_file_range(2) does
/// that by itself.
///
/// # Errors
/// As copy_file_range(2), pread(2) and pwrite(2). A block that cannot be read is left out: it is fetched.
pub fn copy_blocks(from: &File, to: &File, geometry: Geometry, right: &Bitmap) -> io::Result<()> {
    let mut block = 0;
    while block < geometry.blocks() {
        let first = block;
        while block < geometry.blocks() && right.get(block) {
            block += 1;
        }
        if block == first {
            block += 1;
            continue;
        }
        let start = geometry.range(first).unwrap_or_default().start;
        let end = geometry.range(block - 1).unwrap_or_default().end;
        copy_range(from, to, start..end)?;
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, range: Range<u64>) -> io::Result<()> {
    let done = copy_in_kernel(from, to, &range);
    copy_by_hand(from, to, range.start + done..range.end)
}

/// Has the kernel copy, as far as it can; returns how much that was.
fn copy_in_kernel(from: &File, to: &File, range: &Range<u64>) -> u64 {
    let Ok(start) = i64::try_from(range.start) else {
        return 0;
    };
    let (mut read_at, mut write_at) = (start, start);
    let mut left = range.end - range.start;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        match copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), length) {
            Ok(copied) if copied > 0 => left -= copied as u64,
            // The end of the file, or an error that the copy by hand meets and tells.
            _ => break,
        }
    }
    range.end - range.start - left
}

fn copy_by_hand(from: &File, to: &File, range: Range<u64>) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut at = range.start;
    while at < range.end {
        let length = (range.end - at).min(PIECE as u64) as usize;
        let read = match read_full_at(from, &mut buffer[..length], at) {
            Err(error) if is_of_device(&error) => length,
            read => {
                let read = read?;
                to.write_all_at(&buffer[..read], at)?;
                read
            }
        };
        // The file has shrunk.
        if read == 0 {
            break;
        }
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_blocks_that_are_right_are_copied() {
        let from = tempfile::tempfile().expect("a file");
        let bytes: Vec<u8> = (0..1000u32).map(|at| (at % 251) as u8 | 1).collect();
        from.write_all_at(&bytes, 0).expect("written");
        let geometry = Geometry::new(1000, 64).expect("valid");
        let right = Bitmap::new(geometry.blocks()).expect("memory");
        [0, 3, 4, 15].into_iter().for_each(|block| right.set(block));
        for copy in [copy_blocks, copy_all_by_hand] {
            let to = tempfile::tempfile().expect("a file");
            to.set_len(1000).expect("long");
            copy(&from, &to, geometry, &right).expect("copied");
            let mut copied = vec![0; 1000];
            to.read_exact_at(&mut copied, 0).expect("readable");
            for (at, byte) in copied.iter().enumerate() {
                let is_copied = right.get(at as u32 / 64);
                assert_eq!(*byte, if is_copied { bytes[at] } else { 0 }, "byte {at}");
            }
        }
    }

    fn copy_all_by_hand(
        from: &File,
        to: &File,
        geometry: Geometry,
        right: &Bitmap,
    ) -> io::Result<()> {
        let blocks = (0..geometry.blocks()).filter(|block| right.get(*block));
        let mut ranges = blocks.filter_map(|block| geometry.range(block));
        ranges.try_for_each(|range| copy_by_hand(from, to, range))
    }
}
