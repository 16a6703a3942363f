//! The hash of the whole file, computed behind the growing prefix of present blocks in a process of its own.
//!
//! The order of the blocks decides how much of it is done when the last block arrives: in order, nearly all.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::progress::{Figure, Progress};
use super::report::Report;
use crate::cascade_file::Geometry;
use crate::faults;
use crate::hash::FileHash;
use crate::store::bitmap::Bitmap;
use crate::store::verify::is_of_device;
use crate::sys::letters::Sender;

/// How much is read at once.
const READ: usize = 256 << 10;

/// The file that is hashed.
pub struct Whole<'a> {
    /// Its bytes.
    pub data: &'a File,
    /// Where the blocks lie.
    pub geometry: Geometry,
    /// Which are there.
    pub present: &'a Bitmap,
    /// Where it says how far it is.
    pub progress: &'a Progress,
}

/// Follows the prefix to the end of the file and reports its hash. `wake` becomes readable whenever the prefix has
/// grown. Answers the exit status.
pub fn run(whole: &Whole<'_>, wake: &File, reports: &Sender<Report>) -> u8 {
    faults::at("hasher");
    let report = match whole.follow(wake) {
        Ok(hash) => Report::WholeFile(hash),
        Err(error) => Report::WholeFileFailed(error.raw_os_error().unwrap_or(libc::EIO)),
    };
    reports.send(&report).is_err().into()
}

/// How often a part of the file is read before that is an error.
const READ_ATTEMPTS: u32 = 3;

impl Whole<'_> {
    fn follow(&self, mut wake: &File) -> io::Result<FileHash> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; READ];
        let mut block = 0;
        while block < self.geometry.blocks() {
            while !self.present.get(block) {
                // An eventfd: the read waits until the downloader has added to it.
                let mut count = [0; 8];
                wake.read_exact(&mut count)?;
            }
            let (range, next) = self.present_run(block);
            let mut at = range.start;
            while at < range.end {
                let room = (range.end - at).min(READ as u64) as usize;
                self.read(&mut buffer[..room], at)?;
                hasher.update(&buffer[..room]);
                at += room as u64;
                self.progress.set(Figure::Hashed, at);
            }
            block = next;
        }
        Ok(FileHash::finish(hasher))
    }

    /// Reads what was verified before. An error of the device may pass: that of a network mount, or of a sector that the
    /// disk replaces.
    fn read(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let mut attempts = 1;
        loop {
            match self.data.read_exact_at(buffer, at) {
                Err(error) if is_of_device(&error) && attempts < READ_ATTEMPTS => attempts += 1,
                read => return read,
            }
        }
    }

    /// The bytes of the block and of those that follow it and are present too, as far as they are read at once; and the
    /// block after them.
    fn present_run(&self, block: u32) -> (Range<u64>, u32) {
        let mut range = self.geometry.range(block).unwrap_or_default();
        let mut next = block + 1;
        while let Some(more) = self.geometry.range(next)
            && more.end - range.start <= READ as u64
            && self.present.get(next)
        {
            range.end = more.end;
            next += 1;
        }
        (range, next)
    }
}
