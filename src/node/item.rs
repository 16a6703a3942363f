//! One file of a node: its cascade file, its data, and its stage.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use nix::unistd::Pid;

use super::announcer::registered_bit;
use crate::cascade_file::{CascadeFile, Geometry};
use crate::download::progress::{Figure, Progress};
use crate::download::report::Heard;
use crate::events::Subject;
use crate::exit::Status;
use crate::faults;
use crate::hash::{CascadeHash, FileHash};
use crate::service::blocks::{Onlookers, ServedFile};
use crate::store::bitmap::Bitmap;
use crate::store::data_file::{Agreement, DataFile, Origin};
use crate::store::open_data;
use crate::store::stamp::Stamp;
use crate::sys::pipe::{Receiver, Sender, lossy_packet_pipe};
use crate::text::escape_path;

/// The stage of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its data were not verified yet.
    Unverified,
    /// A process verifies it.
    Verifying(Pid),
    /// It is verified; blocks are missing, or the whole file was not compared yet.
    Unfinished,
    /// A process downloads it.
    Downloading(Pid),
    /// Its downloader died; it will be started again.
    Resting(Instant),
    /// Everything is there.
    Complete,
    /// It was given up.
    GivenUp(Status),
}

/// A file's turn to be downloaded, where more files wait than there is room for.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The later it began, the higher.
    pub number: u64,
    /// How much was received when that was looked at last, and since when it has not grown.
    pub received: u64,
    /// See `received`.
    pub since: Instant,
    /// It was asked to make room.
    pub over: bool,
    /// When something arrived last, in this turn or an earlier one.
    pub arrived: Instant,
}

/// The id of the next file; of this process, and so of the node.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// How a file is opened.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// There are trackers that may name peers for it.
    pub tracked: bool,
    /// The node runs already.
    pub late: bool,
    /// The data may lie behind a symbolic link: they are served, and not written.
    pub follow_links: bool,
}

/// A file.
///
/// The block hashes are not kept: the processes that verify and download read them again, so that the supervisor
/// stays small, and with it every fork.
#[derive(Debug)]
pub struct Item {
    /// The data file's name as the user knows it, fit to be shown.
    pub name: String,
    /// The data file as it was named.
    pub named: PathBuf,
    /// Tells it from another copy of the same file.
    pub id: u64,
    /// Its name on the network.
    pub hash: CascadeHash,
    /// The hash of its data.
    pub data_hash: FileHash,
    /// Where the blocks lie.
    pub geometry: Geometry,
    /// The cascade file.
    pub meta: Arc<File>,
    /// The data file.
    pub data: DataFile,
    /// Which blocks are verified.
    pub present: Arc<Bitmap>,
    /// Whether the data file is still what was verified.
    pub stamp: Arc<Stamp>,
    /// The data file is somebody's: it is served as far as it is right, and never written.
    pub left_alone: bool,
    /// A block of it could not be read: it is verified again, and served meanwhile.
    pub damaged: bool,
    /// Its turn to be downloaded.
    pub turn: Turn,
    /// Who watches it grow.
    pub onlookers: Arc<Onlookers>,
    /// How often they had looked, and since when they have not again.
    pub watched: (u64, Option<Instant>),
    /// Figures of the download.
    pub progress: Arc<Progress>,
    /// Where announcers put the peers that they find, and where the downloader takes them; nothing without trackers.
    pub found: Option<(Sender<Heard>, Receiver<Heard>)>,
    /// How far it is.
    pub stage: Stage,
    /// How often its downloader died.
    pub deaths: u32,
    /// It came when the node was running.
    pub late: bool,
    /// The listener knows it.
    pub handed_over: bool,
    /// So do the announcers.
    pub announced: bool,
}

impl Item {
    /// Reads the cascade file and opens the data file. What the processes of a node share of a file that comes late
    /// can be handed to those that run already.
    ///
    /// # Errors
    /// Where one of them cannot be read or used; the message says which and why.
    pub fn open(cascade: &Path, data: &Path, how: Opening) -> anyhow::Result<Self> {
        faults::at("opening");
        let reading = || format!("cannot read {}", escape_path(cascade));
        let meta = open_data(cascade).with_context(reading)?;
        let parsed = CascadeFile::read_open(&meta).with_context(reading)?;
        let geometry = parsed.geometry();
        let preparing = || format!("cannot prepare the download of {}", escape_path(data));
        let (present, stamp) = if how.late {
            (Bitmap::passable(geometry.blocks()), Stamp::passable())
        } else {
            (Bitmap::new(geometry.blocks()), Stamp::new())
        };
        Ok(Self {
            name: escape_path(data),
            named: data.into(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            hash: parsed.hash(),
            data_hash: parsed.file_hash(),
            geometry,
            meta: Arc::new(meta),
            data: DataFile::open(data, &parsed.hash(), how.follow_links)?,
            present: Arc::new(present.with_context(preparing)?),
            stamp: Arc::new(stamp.with_context(preparing)?),
            left_alone: false,
            damaged: false,
            turn: Turn {
                number: 0,
                received: 0,
                since: Instant::now(),
                over: false,
                arrived: Instant::now(),
            },
            onlookers: Arc::new(Onlookers::new().with_context(preparing)?),
            watched: (0, None),
            progress: Arc::new(Progress::new().with_context(preparing)?),
            found: how
                .tracked
                .then(found_pipe)
                .transpose()
                .with_context(preparing)?,
            stage: Stage::Unverified,
            deaths: 0,
            late: how.late,
            handed_over: false,
            announced: !how.late,
        })
    }

    /// Reads the block hashes again.
    ///
    /// # Errors
    /// Where the cascade file is not what it was.
    pub fn load(&self) -> anyhow::Result<CascadeFile> {
        let reading = || format!("cannot read the cascade file of {}", self.name);
        let cascade = CascadeFile::read_open(&self.meta).with_context(reading)?;
        anyhow::ensure!(
            cascade.hash() == self.hash,
            "cannot use the cascade file of {}: it was changed",
            self.name
        );
        Ok(cascade)
    }

    /// Begins with nothing known of the data file; but what is known of one that is copied first is needed for that, and
    /// of one that is damaged in places the rest is served meanwhile.
    pub fn begin_verification(&mut self) {
        let is_kept = std::mem::take(&mut self.damaged) || self.data.to_copy().is_some();
        if !is_kept {
            self.present.clear_all();
        }
    }

    /// How much of the data file agrees, as a verifier found it.
    pub fn agreement(&self, origin: Origin) -> Agreement {
        let length = self.progress.get(Figure::DataLength);
        Agreement {
            right: self.present.count(),
            blocks: self.geometry.blocks(),
            excess: length.saturating_sub(self.geometry.length()),
            origin,
        }
    }

    /// Every block is right, as somebody has found out, and the data file was changed last at this time.
    pub fn take_as_right(&self, modified: u64) {
        (0..self.geometry.blocks()).for_each(|block| self.present.set(block));
        self.progress
            .set(Figure::DataLength, self.geometry.length());
        self.progress.set(Figure::Modified, modified);
    }

    /// Whether the data file was changed since it was frozen.
    pub fn was_changed(&self) -> bool {
        self.data
            .reading()
            .metadata()
            .is_ok_and(|metadata| !self.stamp.fits(&metadata))
    }

    /// From now on the file must stay as it was when it was verified or completed.
    pub fn freeze(&self) {
        self.stamp.freeze(self.progress.get(Figure::Modified));
    }

    /// Whether nothing has to be done: the file has its name, all blocks, and the right length.
    pub fn needs_nothing(&self) -> bool {
        self.data.is_named()
            && self.present.is_full()
            && self.progress.get(Figure::DataLength) == self.geometry.length()
    }

    /// Whether the tracker with this number was told that the file is here.
    pub fn is_registered_at(&self, number: usize) -> bool {
        self.progress.get(Figure::Registered) & registered_bit(number) != 0
    }

    /// Bytes of verified blocks, at most the length of the file.
    pub fn verified_bytes(&self) -> u64 {
        self.geometry.bytes_of(self.present.count())
    }

    /// The file as events name it.
    pub fn subject(&self) -> Subject {
        Subject::new(self.data.path(), &self.hash)
    }

    /// The file as the block service sees it.
    pub fn served(&self) -> ServedFile {
        let meta_length = 64 + 32 * u64::from(self.geometry.blocks());
        ServedFile {
            id: self.id,
            hash: self.hash,
            geometry: self.geometry,
            data: Arc::clone(self.data.reading()),
            meta: (Arc::clone(&self.meta), meta_length),
            present: Arc::clone(&self.present),
            stamp: Arc::clone(&self.stamp),
            onlookers: Some(Arc::clone(&self.onlookers)),
        }
    }

    /// Takes note of who has looked at the blocks that are there.
    pub fn notice_onlookers(&mut self) {
        let looks = self.onlookers.count();
        if looks != self.watched.0 {
            self.watched = (looks, Some(Instant::now()));
        }
    }

    /// The descriptors that the processes need which verify and download it.
    pub fn descriptors(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        let mut descriptors = vec![self.meta.as_fd(), self.data.reading().as_fd()];
        descriptors.extend(self.data.writing().map(AsFd::as_fd));
        if let Some((sender, receiver)) = &self.found {
            // With its own copy of the write end the downloader's poll does not see a hang-up without announcers.
            descriptors.extend([sender.as_fd(), receiver.as_fd()]);
        }
        descriptors
    }

    /// Removes a part that this run created, where nothing was written to it.
    pub fn discard_if_unwritten(&self) {
        let written = self.progress.get(Figure::Received) > 0 || self.present.count() > 0;
        if !written && self.stage != Stage::Complete {
            self.data.discard();
        }
    }
}

/// A file may have no downloader to read what announcers find: they must not wait for one.
///
/// # Errors
/// Where the system has no descriptor left.
pub fn found_pipe() -> io::Result<(Sender<Heard>, Receiver<Heard>)> {
    lossy_packet_pipe()
}
