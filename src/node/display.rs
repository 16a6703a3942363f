//! What is shown of downloads: a [`Board`] to people, events to programs; at the end a summary.

use std::time::{Duration, Instant};

use super::finishing::{Step, Watch};
use super::item::{Item, Stage};
use crate::cli::Reporting;
use crate::display::{Board, Job, Phase};
use crate::download::progress::Figure;
use crate::events::{Event, Events};
use crate::text::{count, size};

pub use crate::display::REDRAW;

/// How often an event tells how far a file is.
const EVENT_EVERY: Duration = Duration::from_secs(1);

/// The downloads of a node, as they are shown.
#[derive(Debug)]
pub enum Display {
    /// Rows or lines, for people.
    Board(Board, Vec<Watch>),
    /// Events, for a program.
    Events(Events, Vec<Told>),
    /// Nothing.
    Nothing,
}

/// What the last events about a file told.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    at: Instant,
    bytes: u64,
    peers: u64,
    finishing: Watch,
}

impl Told {
    fn new() -> Self {
        Self {
            at: Instant::now(),
            bytes: 0,
            peers: 0,
            finishing: Watch::default(),
        }
    }
}

impl Display {
    /// Shows so many files in the way that was asked for, or that fits standard error.
    pub fn new(files: usize, reporting: &Reporting, events: &Events) -> Self {
        if reporting.json {
            Self::Events(events.clone(), vec![Told::new(); files])
        } else if reporting.quiet {
            Self::Nothing
        } else {
            Self::Board(Board::new(), vec![Watch::default(); files])
        }
    }

    /// Shows how far the files are.
    pub fn update(&mut self, items: &[Item]) {
        match self {
            Self::Board(board, watches) => {
                let jobs = items.iter().zip(watches.iter_mut());
                let jobs: Vec<Job> = jobs.map(|(item, watch)| job(item, watch)).collect();
                board.update(&jobs);
            }
            Self::Events(events, told) => {
                for (item, told) in items.iter().zip(told.iter_mut()) {
                    tell(events, item, told);
                }
            }
            Self::Nothing => {}
        }
    }

    /// There is one file more, the last.
    pub fn add(&mut self) {
        match self {
            Self::Board(_, watches) => watches.push(Watch::default()),
            Self::Events(_, told) => told.push(Told::new()),
            Self::Nothing => {}
        }
    }

    /// There is one file less.
    pub fn remove(&mut self, index: usize) {
        match self {
            Self::Board(_, watches) => _ = watches.remove(index),
            Self::Events(_, told) => _ = told.remove(index),
            Self::Nothing => {}
        }
    }

    /// Prints something while no row is in its way.
    pub fn aside<R>(&mut self, print: impl FnOnce() -> R) -> R {
        match self {
            Self::Board(board, _) => board.aside(print),
            Self::Events(..) | Self::Nothing => print(),
        }
    }

    /// Takes the rows off the terminal; from now on the log goes there.
    pub fn clear(&mut self) {
        *self = Self::Nothing;
    }
}

/// A file as the board shows it.
fn job(item: &Item, watch: &mut Watch) -> Job {
    let step = Step::of(item);
    let is_news = watch.due(step).is_some();
    let figure = |figure| item.progress.get(figure);
    let (have, total) = (item.verified_bytes(), item.geometry.length());
    let (phase, done, moved, note) = match (item.stage, step) {
        (Stage::Verifying(_), _) => {
            let checked = figure(Figure::Checked).min(total);
            (Phase::Reading("verifying"), checked, checked, String::new())
        }
        (Stage::Downloading(_), Some(step)) => (Phase::Ending, have, 0, step.to_string()),
        (Stage::Downloading(_), None) => {
            let peers = count(figure(Figure::Peers) as usize, "peer");
            (Phase::Receiving, have, figure(Figure::Fetched), peers)
        }
        (Stage::Unverified | Stage::Unfinished | Stage::Resting(_), _) => {
            (Phase::Waiting, have, 0, String::new())
        }
        (Stage::Complete, _) => (Phase::Done, total, 0, String::new()),
        (Stage::GivenUp(_), _) => (Phase::GivenUp, have, 0, String::new()),
    };
    Job {
        name: item.name.clone(),
        phase,
        done,
        have: if phase == Phase::Done { total } else { have },
        total,
        moved,
        note,
        is_news,
    }
}

/// Emits what has changed: the number of peers at once, the bytes every second, what takes long at the end.
fn tell(events: &Events, item: &Item, told: &mut Told) {
    if !matches!(item.stage, Stage::Downloading(_)) {
        return;
    }
    let (bytes, peers) = (item.verified_bytes(), item.progress.get(Figure::Peers));
    if peers != told.peers {
        told.peers = peers;
        let file = item.subject();
        events.emit(|| Event::Peers { file, peers });
    }
    if bytes != told.bytes && told.at.elapsed() >= EVENT_EVERY {
        (told.at, told.bytes) = (Instant::now(), bytes);
        let (file, length) = (item.subject(), item.geometry.length());
        events.emit(|| Event::Progress {
            file,
            bytes,
            length,
        });
    }
    if let Some(step) = told.finishing.due(Step::of(item)) {
        let (file, step) = (item.subject(), step.name());
        events.emit(|| Event::Finishing { file, step });
    }
}

/// The summary of a download that is complete: what was received in this run, and how fast.
pub fn summary(item: &Item) -> String {
    let received = item.progress.get(Figure::Fetched);
    if received == 0 {
        return format!("{}: complete", item.name);
    }
    let seconds = item.progress.get(Figure::Milliseconds).max(1) as f64 / 1000.0;
    let rate = size((received as f64 / seconds) as u64);
    let from = count(item.progress.get(Figure::Contributors) as usize, "peer");
    format!(
        "{}: {} in {seconds:.2} s ({rate}/s) from {from}",
        item.name,
        size(received)
    )
}

/// What a download asked for, and what of it was in vain.
pub fn waste(item: &Item) -> String {
    let figure = |figure| item.progress.get(figure);
    let received = figure(Figure::Received);
    format!(
        "{}: {} requests, {} in vain; {received} bytes received, {} in vain",
        item.name,
        figure(Figure::Requests),
        figure(Figure::InVain),
        received.saturating_sub(figure(Figure::Fetched)),
    )
}
