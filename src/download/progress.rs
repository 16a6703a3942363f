//! Figures of a download in shared memory: written by its processes, read by whoever shows them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::shared::Shared;

/// The figures of one file.
#[derive(Debug)]
pub struct Progress {
    cells: Shared<AtomicU64>,
}

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Bytes of the data file that were verified when the file was opened, as they are counted.
    Checked,
    /// Bytes of blocks that were received, wrong ones included.
    Received,
    /// Requests for blocks.
    Requests,
    /// Requests that were answered with "not present", or with a block that had come from elsewhere meanwhile.
    InVain,
    /// Peers that are being downloaded from.
    Peers,
    /// Peers from whom blocks came.
    Contributors,
    /// Peers that are known to lack blocks.
    IncompletePeers,
    /// At which trackers the file was registered, as a bit set by their numbers.
    Registered,
    /// How many workers the file may have; the supervisor decides.
    Workers,
    /// Bytes of blocks that were fetched and are right; what came twice counts once.
    Fetched,
    /// Whether the download knows whom to ask, and so wants workers.
    Wanted,
    /// Not 0 where nothing more is done about the file.
    GivenUp,
    /// Milliseconds that the download took.
    Milliseconds,
    /// Bytes of which the hash of the whole file was computed.
    Hashed,
    /// Not 0 while all of it is right and is made to survive a crash.
    Syncing,
    /// Length of the data file when it was verified, in bytes.
    DataLength,
    /// When the data file was changed last before it was verified or completed, as `stamp::modified` gives it.
    Modified,
    /// How far the file is, for those who tell of it.
    Stage,
}

impl Progress {
    /// All zero.
    ///
    /// # Errors
    /// Where the memory cannot be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            cells: Shared::new(Figure::Stage as usize + 1)?,
        })
    }

    /// From now on this process and its children only look.
    ///
    /// # Errors
    /// As mprotect(2).
    pub fn protect(&self) -> io::Result<()> {
        self.cells.protect()
    }

    /// The cell of a figure.
    pub fn cell(&self, figure: Figure) -> &AtomicU64 {
        &self.cells[figure as usize]
    }

    /// Reads a figure.
    pub fn get(&self, figure: Figure) -> u64 {
        self.cell(figure).load(Ordering::Relaxed)
    }

    /// Sets a figure.
    pub fn set(&self, figure: Figure, value: u64) {
        self.cell(figure).store(value, Ordering::Relaxed);
    }

    /// Adds to a figure.
    pub fn add(&self, figure: Figure, value: u64) {
        self.cell(figure).fetch_add(value, Ordering::Relaxed);
    }
}
