//! Whether a file was begun as a certain download, from what its blocks hold.

use std::fs::File;
use std::io;
use std::ops::Range;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::bitmap::Bitmap;
use super::data_file::Origin;
use super::pieces::{PIECE, read_full_at};
use super::verify::is_of_device;
use crate::cascade_file::Geometry;

/// Tells where a file comes from of which these blocks are right.
///
/// Only blocks that are whole count: the last ones of a file that grows from its beginning may be cut.
///
/// # Errors
/// As pread(2).
pub fn origin(data: &File, geometry: Geometry, present: &Bitmap) -> io::Result<Origin> {
    let length = data.metadata()?.len();
    // Those that are right are looked at first: mostly the first of them has content.
    let (mut right, mut wrong) = (false, false);
    for looked_for in [true, false] {
        let found = match looked_for {
            true => &mut right,
            false => &mut wrong,
        };
        for block in 0..geometry.blocks() {
            let range = geometry.range(block).unwrap_or_default();
            if range.end > length {
                break;
            }
            if present.get(block) == looked_for && has_content(data, range)? {
                *found = true;
                break;
            }
        }
        if !right {
            return Ok(Origin::Foreign);
        }
    }
    Ok(if wrong {
        Origin::Mixed
    } else {
        Origin::Download
    })
}

/// Whether a byte of this range is not zero. What cannot be read was written once: nobody knows what it is.
fn has_content(data: &File, range: Range<u64>) -> io::Result<bool> {
    if is_hole(data, &range) {
        return Ok(false);
    }
    let mut buffer = vec![0; PIECE];
    let mut at = range.start;
    while at < range.end {
        let length = (range.end - at).min(PIECE as u64) as usize;
        let read = match read_full_at(data, &mut buffer[..length], at) {
            Err(error) if is_of_device(&error) => return Ok(true),
            read => read?,
        };
        if buffer[..read].iter().any(|byte| *byte != 0) {
            return Ok(true);
        }
        if read < length {
            return Ok(false);
        }
        at += read as u64;
    }
    Ok(false)
}

/// Whether the file system knows that nothing was written there. One that does not know takes all for data.
fn is_hole(data: &File, range: &Range<u64>) -> bool {
    let Ok(start) = i64::try_from(range.start) else {
        return false;
    };
    match lseek(data, start, Whence::SeekData) {
        Ok(next) => u64::try_from(next).is_ok_and(|next| next >= range.end),
        Err(error) => error == Errno::ENXIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    const BLOCK: u64 = 4096;

    /// The origin of a file with such blocks, of which these are right.
    fn origin_of(blocks: &[u8], length: u64, right: &[u32]) -> Origin {
        let mut file = tempfile::tempfile().expect("a file");
        for byte in blocks {
            file.write_all(&[*byte; BLOCK as usize]).expect("written");
        }
        file.set_len(length).expect("cut");
        let geometry = Geometry::new(blocks.len() as u64 * BLOCK, BLOCK).expect("valid");
        let present = Bitmap::new(geometry.blocks()).expect("memory");
        right.iter().for_each(|block| present.set(*block));
        origin(&file, geometry, &present).expect("readable")
    }

    #[test]
    fn blocks_of_zeros_say_nothing_of_where_a_file_comes_from() {
        assert_eq!(origin_of(&[0, 0, 7], 3 * BLOCK, &[0, 1]), Origin::Foreign);
        assert_eq!(origin_of(&[0, 0, 0], 3 * BLOCK, &[0]), Origin::Foreign);
        assert_eq!(origin_of(&[0, 7, 0], 3 * BLOCK, &[1]), Origin::Download);
    }

    #[test]
    fn a_file_whose_other_blocks_hold_something_is_mixed() {
        assert_eq!(origin_of(&[7, 8, 9], 3 * BLOCK, &[1]), Origin::Mixed);
        assert_eq!(
            origin_of(&[7, 8, 9], 3 * BLOCK, &[0, 1, 2]),
            Origin::Download
        );
    }

    #[test]
    fn a_block_that_is_cut_counts_for_nothing() {
        let length = 2 * BLOCK + 1;
        assert_eq!(origin_of(&[7, 8, 9], length, &[0, 1]), Origin::Download);
        assert_eq!(origin_of(&[7, 8, 9], length, &[2]), Origin::Foreign);
    }

    #[test]
    fn what_was_reserved_and_not_written_is_no_content() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&[7; BLOCK as usize], BLOCK)
            .expect("written");
        super::super::room::reserve(&file, 5 * BLOCK).expect("room");
        let geometry = Geometry::new(5 * BLOCK, BLOCK).expect("valid");
        let present = Bitmap::new(5).expect("memory");
        present.set(1);
        let origin = origin(&file, geometry, &present).expect("readable");
        assert_eq!(origin, Origin::Download);
    }
}
