//! What a downloader is told, and what it answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cascade_file::CascadeFile;
use crate::confine::Confinement;
use crate::download::progress::Progress;
use crate::download::report::Heard;
use crate::events::Events;
use crate::hash::CascadeHash;
use crate::net::admission::Admission;
use crate::net::bucket::Bucket;
use crate::net::named::NamedPeers;
use crate::store::bitmap::Bitmap;
use crate::store::data_file::DataFile;
use crate::sys::pipe::Receiver;

/// What is to be downloaded, and how.
#[derive(Debug)]
pub struct Task<'a> {
    /// The file.
    pub hash: CascadeHash,
    /// Its block hashes.
    pub cascade: &'a CascadeFile,
    /// Where the data go; prepared for writing.
    pub data: &'a DataFile,
    /// Which blocks are there.
    pub present: &'a Bitmap,
    /// Figures for whoever shows them.
    pub progress: &'a Progress,
    /// Peers that the user named.
    pub peers: &'a NamedPeers,
    /// Peers that announcers hear of; nothing where there is no tracker.
    pub found: Option<&'a Receiver<Heard>>,
    /// Which peers may be connected to.
    pub admission: &'a Arc<Admission>,
    /// Bytes per second, over all workers of all files.
    pub limit: Option<&'a Bucket>,
    /// Give up when nothing arrived for this long.
    pub timeout: Option<Duration>,
    /// When something arrived last, before this process began.
    pub arrived: Instant,
    /// Where failures are told, beside the log.
    pub events: &'a Events,
    /// Never give up: what a daemon does.
    pub patient: bool,
    /// Workers in all where each is the only one of its peer.
    pub spread: usize,
    /// Ask peers for maps.
    pub maps: bool,
    /// How workers are confined.
    pub confinement: &'a Confinement,
}

/// How a download ended. The number is the exit status of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything is there, verified and under its name.
    Complete = 0,
    /// An error, which was said.
    Failed = 1,
    /// Blocks are missing, and nobody is left to ask.
    Missing = 3,
    /// It was asked to end.
    Stopped = 4,
}

impl Ending {
    /// The ending that an exit status means; nothing for that of a process that did not get that far.
    pub fn from_exit_status(status: i32) -> Option<Self> {
        [Self::Complete, Self::Failed, Self::Missing, Self::Stopped]
            .into_iter()
            .find(|ending| *ending as i32 == status)
    }
}
