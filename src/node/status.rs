//! What a peer tells of itself, from the memory that its processes share.

use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::files::{FileList, FileSpec};
use super::finishing::Step;
use super::item::{Item, Stage};
use crate::cascade_file::Geometry;
use crate::download::progress::{Figure, Progress};
use crate::server::Ledger;
use crate::status::rates::Rates;
use crate::status::report::{About, Connections, FORMAT, Held, Peer, Role, State, Status};
use crate::status::service::Source;
use crate::store::bitmap::Bitmap;

/// A peer, from the side of those who tell of it.
#[derive(Debug)]
pub struct NodeSource {
    about: About,
    ledger: Arc<Ledger>,
    files: Vec<File>,
    /// Those of which the cascade file is missing.
    sought: Vec<Held>,
}

/// A file, as far as it is told of.
#[derive(Debug)]
struct File {
    path: String,
    hash: String,
    geometry: Geometry,
    present: Arc<Bitmap>,
    progress: Arc<Progress>,
}

impl NodeSource {
    /// A peer with these files, and those of the list whose cascade files it is searching for.
    pub fn new(about: &About, ledger: &Arc<Ledger>, items: &[Item], list: &FileList) -> Self {
        let sought = list.named.iter().filter(|file| file.is_to_be_fetched());
        Self {
            about: about.clone(),
            ledger: Arc::clone(ledger),
            files: items.iter().map(File::new).collect(),
            sought: sought.map(sought_file).collect(),
        }
    }
}

fn sought_file(file: &FileSpec) -> Held {
    Held {
        file: file.data.to_string_lossy().into_owned(),
        hash: file.hash.map(|hash| hash.to_string()).unwrap_or_default(),
        length: 0,
        block_size: 0,
        blocks: 0,
        present: 0,
        verified: 0,
        state: State::Fetching,
        sources: 0,
        received: 0,
        received_per_second: 0.0,
    }
}

impl File {
    fn new(item: &Item) -> Self {
        Self {
            path: item.data.path().to_string_lossy().into_owned(),
            hash: item.hash.to_string(),
            geometry: item.geometry,
            present: Arc::clone(&item.present),
            progress: Arc::clone(&item.progress),
        }
    }

    /// `rate` is that of what is received.
    fn told(&self, rate: f64) -> Held {
        let figure = |figure| self.progress.get(figure);
        let present = self.present.count();
        let state = State::ALL.get(figure(Figure::Stage) as usize);
        Held {
            file: self.path.clone(),
            hash: self.hash.clone(),
            length: self.geometry.length(),
            block_size: self.geometry.block_size(),
            blocks: self.geometry.blocks(),
            present,
            verified: self.geometry.bytes_of(present),
            state: state.copied().unwrap_or(State::Verifying),
            sources: figure(Figure::Peers),
            received: figure(Figure::Received),
            received_per_second: rate,
        }
    }
}

impl Source for NodeSource {
    fn only_look(&self) -> io::Result<()> {
        self.ledger.protect()?;
        self.files.iter().try_for_each(|file| {
            file.present.protect()?;
            file.progress.protect()
        })
    }

    /// What was sent, then what was received of each file.
    fn counters(&self) -> Vec<u64> {
        let sent = self.ledger.tally().sent();
        let received = |file: &File| file.progress.get(Figure::Received);
        let received = self.files.iter().map(received);
        std::iter::once(sent).chain(received).collect()
    }

    fn status(&self, rates: &Rates, now: SystemTime) -> Status {
        let (tally, counters, at) = (self.ledger.tally(), self.counters(), Instant::now());
        let rate = |index: usize| rates.rate(at, index, counters[index]);
        let files: Vec<Held> = self
            .files
            .iter()
            .zip(1..)
            .map(|(file, index)| file.told(rate(index)))
            .chain(self.sought.iter().cloned())
            .collect();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Status {
            format: FORMAT,
            about: self.about.clone(),
            now: since.as_secs(),
            connections: Connections::new(&tally, rate(0)),
            role: Role::Peer(Peer {
                received: files.iter().map(|file| file.received).sum(),
                received_per_second: files.iter().map(|file| file.received_per_second).sum(),
                sources: files.iter().map(|file| file.sources).sum(),
                files,
            }),
        }
    }
}

/// Lets those see how far a file is who tell of it.
pub fn publish(item: &Item) {
    let state = match item.stage {
        Stage::Unverified | Stage::Verifying(_) => State::Verifying,
        Stage::Unfinished | Stage::Resting(_) => State::Waiting,
        Stage::Downloading(_) if Step::of(item).is_some() => State::Finishing,
        Stage::Downloading(_) => State::Downloading,
        Stage::Complete => State::Complete,
        Stage::GivenUp(_) => State::GivenUp,
    };
    let code = State::ALL.iter().position(|other| *other == state);
    item.progress
        .set(Figure::Stage, code.unwrap_or_default() as u64);
}
