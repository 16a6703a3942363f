//! Whether a file is still the one that was verified.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::shared::Shared;

/// The time of the last change of a file that nobody should change, in shared memory: set once the file is complete.
///
/// Blocks are verified once. If somebody writes to the file later, what was verified is not what would be sent, so it
/// is not sent any more.
#[derive(Debug)]
pub struct Stamp {
    modified: Shared<AtomicU64>,
}

/// The file may change: it is being downloaded or verified.
const CHANGING: u64 = 0;

impl Stamp {
    /// For a file that may change.
    ///
    /// # Errors
    /// Where the memory cannot be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            modified: Shared::new(1)?,
        })
    }

    /// As [`Stamp::new`], in memory that can be handed to processes that were forked before.
    ///
    /// # Errors
    /// As [`Stamp::new`].
    pub fn passable() -> io::Result<Self> {
        Ok(Self {
            modified: Shared::passable(1)?,
        })
    }

    /// One that another process handed over, to be looked at only.
    ///
    /// # Errors
    /// Where it is none.
    pub fn passed(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            modified: Shared::passed(fd, 1)?,
        })
    }

    /// What is handed over for [`Stamp::passed`]; nothing where that is not possible.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.modified.descriptor()
    }

    /// From now on the file must stay as it was at this time of its last change, as [`modified`] gives it.
    pub fn freeze(&self, modified: u64) {
        self.modified[0].store(modified, Ordering::Release);
    }

    /// From now on this process and its children only look.
    ///
    /// # Errors
    /// As mprotect(2).
    pub fn protect(&self) -> io::Result<()> {
        self.modified.protect()
    }

    /// Whether the file is still what it was.
    pub fn fits(&self, metadata: &Metadata) -> bool {
        let frozen = self.modified[0].load(Ordering::Acquire);
        frozen == CHANGING || frozen == time_of(metadata)
    }
}

/// When a file was changed last, in nanoseconds since the Unix epoch; never 0.
///
/// # Errors
/// As fstat(2).
pub fn modified(file: &File) -> io::Result<u64> {
    file.metadata().map(|metadata| time_of(&metadata))
}

fn time_of(metadata: &Metadata) -> u64 {
    let nanoseconds = metadata
        .mtime()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(metadata.mtime_nsec());
    (nanoseconds as u64).max(1)
}
