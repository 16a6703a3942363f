//! The hash of the whole file, computed behind the growing prefix of present blocks in a process of its own.
//!
//! The order of the blocks decides how much of it is done when the last block arrives: in order, nearly all.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::report::Report;
use crate::cascade_file::Geometry;
use crate::hash::FileHash;
use crate::store::bitmap::Bitmap;
use crate::sys::pipe::Sender;

/// How much is read at once.
const READ: usize = 256 << 10;

/// Follows the prefix to the end of the file and reports its hash. `wake` becomes readable whenever the prefix has
/// grown. Answers the exit status.
pub fn run(
    data: &File,
    geometry: Geometry,
    present: &Bitmap,
    wake: &File,
    reports: &Sender<Report>,
) -> u8 {
    let report = match follow(data, geometry, present, wake) {
        Ok(hash) => Report::WholeFile(hash),
        Err(error) => Report::WholeFileFailed(error.raw_os_error().unwrap_or(libc::EIO)),
    };
    reports.send(&report).is_err().into()
}

fn follow(
    data: &File,
    geometry: Geometry,
    present: &Bitmap,
    mut wake: &File,
) -> io::Result<FileHash> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ];
    for block in 0..geometry.blocks() {
        while !present.get(block) {
            // An eventfd: the read waits until the downloader has added to it.
            let mut count = [0; 8];
            wake.read_exact(&mut count)?;
        }
        let Some(range) = geometry.range(block) else {
            break;
        };
        let mut at = range.start;
        while at < range.end {
            let room = (range.end - at).min(READ as u64) as usize;
            data.read_exact_at(&mut buffer[..room], at)?;
            hasher.update(&buffer[..room]);
            at += room as u64;
        }
    }
    Ok(FileHash::finish(hasher))
}
