//! Cascade files of which only the hash is known: fetched from peers before anything else is done with the file.
//!
//! ```text
//! supervisor
//! ├─ announcer       one per tracker: lists; peers found → pipe    super::announcer
//! └─ questioner      one remote peer at a time; its answer → memory file, exit status
//! ```
//!
//! Nothing that a peer sends is trusted: the process that talks to the peer checks it, and the supervisor hashes it
//! once more before it writes it beside the data.

mod candidates;
mod quest;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::announcer;
use super::{FileSpec, Place, Settings, TrackerAddress};
use crate::confine::Role;
use crate::download::metadata::Asked;
use crate::exit::Status;
use crate::hash::CascadeHash;
use crate::logging::complain;
use crate::net::admission::Admission;
use crate::net::named::NamedPeers;
use crate::status::doors::Doors;
use crate::status::service::Source;
use crate::store::atomic::directory_of;
use crate::store::open_data;
use crate::sys::child::{self, Ended};
use crate::sys::fork;
use crate::sys::poll::wait_readable;
use crate::sys::signals::Signals;
use crate::text::escape_path;
use crate::wire::peer::MAX_META;
use quest::Quest;

/// How long the files whose cascade files are there wait for the others.
const COURTESY: Duration = Duration::from_secs(60);
/// Peers that are asked at the same time: for all cascade files together, and for one at least.
const MOST_ASKED: usize = 32;
const LEAST_ASKED: usize = 4;
/// How often is looked at what is due.
const TICK: Duration = Duration::from_millis(100);
/// So many announcers may end at the most.
const DEATHS: u32 = 5;

/// What came of it.
#[derive(Debug)]
pub enum Obtained {
    /// The files whose cascade files are there now, and how it went with the others.
    Files(Vec<FileSpec>, Status),
    /// A signal came first.
    Stopped(Signal),
}

/// Those who tell meanwhile how the node is.
pub struct Telling<'a> {
    /// Their processes.
    pub doors: &'a mut Doors,
    /// What they tell.
    pub source: Arc<dyn Source>,
}

/// Sees to it that the cascade file of each of these files is there.
///
/// # Errors
/// Where the system lacks what that needs; a file of which it cannot be got is said, and left out.
pub fn obtain(
    files: &[FileSpec],
    settings: &Settings,
    trackers: &[TrackerAddress],
    peers: &NamedPeers,
    admission: &Admission,
    signals: &Signals,
    telling: Telling<'_>,
) -> anyhow::Result<Obtained> {
    let (mut there, mut status, quests) = sort(files, peers)?;
    if !quests.is_empty() {
        // Nobody knows for how long.
        let count = quests.len();
        settings
            .vitals
            .ready(&format!("fetching cascade files: {count}"));
        let mut search = Search {
            settings,
            trackers,
            admission,
            haste: match there.is_empty() {
                true => Haste::ForEachOther,
                false => Haste::ForOthers,
            },
            quests,
            announcers: Vec::new(),
            deaths: 0,
            started: Instant::now(),
            telling: Some(telling),
        };
        let stopped = search.run(signals);
        search.end();
        if let Some(signal) = stopped? {
            return Ok(Obtained::Stopped(signal));
        }
        for quest in &search.quests {
            match quest.outcome {
                Some(Status::Done) => there.push(quest.file.clone()),
                outcome => status = status.max(outcome.unwrap_or(Status::Failed)),
            }
        }
    }
    Ok(Obtained::Files(there, status))
}

/// As [`obtain`], for a node that serves already: it ends as soon as one of these is there, and answers whether one is.
/// It is not where each has failed for good, or a signal came.
///
/// # Errors
/// As [`obtain`].
pub fn obtain_any(
    files: &[FileSpec],
    settings: &Settings,
    trackers: &[TrackerAddress],
    peers: &NamedPeers,
    admission: &Admission,
    signals: &Signals,
) -> anyhow::Result<bool> {
    let (there, _, quests) = sort(files, peers)?;
    if !there.is_empty() {
        return Ok(true);
    }
    let mut search = Search {
        settings,
        trackers,
        admission,
        haste: Haste::None,
        quests,
        announcers: Vec::new(),
        deaths: 0,
        started: Instant::now(),
        telling: None,
    };
    let stopped = search.run(signals);
    search.end();
    Ok(stopped?.is_none() && search.has_one())
}

/// The files whose cascade files are there, how it went with those that cannot be had, and a search for each other.
fn sort<'a>(
    files: &'a [FileSpec],
    peers: &NamedPeers,
) -> anyhow::Result<(Vec<FileSpec>, Status, Vec<Quest<'a>>)> {
    let (mut there, mut status, mut quests) = (Vec::new(), Status::Done, Vec::new());
    for file in files {
        let is_it = |quest: &Quest<'_>| quest.is_for(file);
        if quests.iter().any(is_it) {
            continue;
        }
        match missing(file) {
            Ok(None) => there.push(file.clone()),
            Ok(Some(hash)) => quests.push(Quest::new(file, hash, peers)?),
            Err(error) => {
                complain(&error);
                status = Status::Failed;
            }
        }
    }
    Ok((there, status, quests))
}

/// The hash of a file whose cascade file has to be fetched; nothing where it is there.
fn missing(file: &FileSpec) -> anyhow::Result<Option<CascadeHash>> {
    let Some(hash) = file.hash else {
        return Ok(None);
    };
    let path = escape_path(&file.cascade);
    match open_data(&file.cascade) {
        Ok(there) => {
            let found = read_capped(&there).with_context(|| format!("cannot read {path}"))?;
            ensure!(
                CascadeHash::of(&found) == hash,
                "cannot save the cascade file as {path}: another file has this name"
            );
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Better known now than after the search.
            let directory = directory_of(&file.cascade);
            let is_there = directory.metadata().is_ok_and(|there| there.is_dir());
            ensure!(
                is_there,
                "cannot save {path}: {} is no directory",
                escape_path(&directory)
            );
            Ok(Some(hash))
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
    }
}

/// All of a file, which must not be longer than a cascade file that is transferred.
fn read_capped(file: &File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    if length > MAX_META {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Who waits for a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    /// Other files, whose cascade files are there.
    ForOthers,
    /// Those that are found, for the rest.
    ForEachOther,
    /// Nobody: the first that is found ends it.
    None,
}

/// The search for all cascade files that are missing.
struct Search<'a> {
    settings: &'a Settings,
    trackers: &'a [TrackerAddress],
    admission: &'a Admission,
    haste: Haste,
    quests: Vec<Quest<'a>>,
    /// A process for each tracker.
    announcers: Vec<Pid>,
    /// How many of them have ended that should not have.
    deaths: u32,
    started: Instant,
    telling: Option<Telling<'a>>,
}

impl Search<'_> {
    /// Searches until all is decided, or a signal comes.
    fn run(&mut self, signals: &Signals) -> anyhow::Result<Option<Signal>> {
        for tracker in self.trackers {
            let announcer = self.start_announcer(tracker)?;
            self.announcers.push(announcer);
        }
        loop {
            if let Some(Telling { doors, source }) = &mut self.telling {
                doors.start(source, &self.settings.confinement);
            }
            let room = (MOST_ASKED / self.quests.len().max(1)).clamp(LEAST_ASKED, MOST_ASKED / 2);
            for quest in &mut self.quests {
                quest.hear()?;
                quest.ask_peers(&self.settings.confinement, self.admission, room);
            }
            self.give_up();
            let is_over = |quest: &Quest<'_>| quest.outcome.is_some();
            if self.quests.iter().all(is_over) || (self.haste == Haste::None && self.has_one()) {
                return Ok(None);
            }
            self.wait(signals)?;
            if let Some(signal) = signals.take_any(self.settings.ending()) {
                return Ok(Some(signal));
            }
            self.reap()?;
        }
    }

    fn start_announcer(&self, tracker: &TrackerAddress) -> io::Result<Pid> {
        let nowhere = Place::nowhere();
        let quests = self.quests.iter();
        let keep: Vec<_> = quests.map(|quest| quest.found.0.as_fd()).collect();
        let announced = self.quests.iter().map(Quest::announced).collect();
        let ports: Vec<u16> = tracker.addresses.iter().map(SocketAddr::port).collect();
        let role = Role::Announcer { ports: &ports };
        let life = || announcer::run(tracker, 0, &nowhere, announced, None);
        let run = || self.settings.confinement.confined(role, life);
        fork::spawn_leaf(&keep, run)
    }

    /// One that was killed is started again; one that ends each time is an error.
    fn announcer_ended(&mut self, number: usize) -> anyhow::Result<()> {
        self.deaths += 1;
        ensure!(
            self.deaths < DEATHS,
            "cannot ask the trackers: an announcer ends each time"
        );
        self.announcers[number] = self.start_announcer(&self.trackers[number])?;
        Ok(())
    }

    fn wait(&self, signals: &Signals) -> io::Result<()> {
        let mut fds = vec![Some(signals.as_fd())];
        fds.extend(self.quests.iter().map(|quest| Some(quest.found.1.as_fd())));
        if wait_readable(&fds, Some(TICK))?[0] {
            signals.clear();
        }
        Ok(())
    }

    fn reap(&mut self) -> anyhow::Result<()> {
        for ended in child::ended() {
            let ended = ended?;
            let Ended { pid, how } = ended;
            if let Some(Telling { doors, .. }) = &mut self.telling
                && doors.ended(ended)
            {
                continue;
            }
            if let Some(number) = self.announcers.iter().position(|one| *one == pid) {
                self.announcer_ended(number)?;
            }
            for quest in &mut self.quests {
                quest.answered(pid, Asked::from_end(how), self.admission);
            }
        }
        Ok(())
    }

    /// Whether a cascade file was found.
    fn has_one(&self) -> bool {
        let found = |quest: &Quest<'_>| quest.outcome == Some(Status::Done);
        self.quests.iter().any(found)
    }

    /// Ends the searches for which there is no hope, or no time.
    fn give_up(&mut self) {
        let waited = self.started.elapsed();
        let others = match self.haste {
            Haste::ForOthers => true,
            Haste::ForEachOther => self.has_one(),
            Haste::None => false,
        };
        let patient = self.settings.daemon || !self.trackers.is_empty();
        let timeout = self.settings.timeout.filter(|timeout| waited >= *timeout);
        for quest in &mut self.quests {
            let why = if let Some(timeout) = timeout {
                let timeout = humantime::format_duration(timeout);
                format!(
                    "no peer sent it within {timeout}{}; peers run by other programs cannot send it, so copy it here yourself",
                    quest.reasons()
                )
            } else if others && waited >= COURTESY {
                match self.settings.daemon {
                    true => "nobody has sent it, and the other files wait; it is searched for beside them",
                    false => "nobody has sent it, and the other files wait",
                }
                .into()
            } else if !patient && quest.is_hopeless() {
                format!(
                    "no peer is left to ask{}; name another peer (-p) or a tracker (-t), or copy the cascade file here yourself",
                    quest.reasons()
                )
            } else {
                continue;
            };
            quest.fail(Status::DataMissing, &why);
        }
    }

    /// Ends the processes.
    fn end(&mut self) {
        if let Some(Telling { doors, .. }) = &mut self.telling {
            // Others will, with more to tell.
            doors.restart();
        }
        let questioners = self.quests.iter().flat_map(Quest::questioners);
        for pid in questioners.chain(self.announcers.iter().copied()) {
            child::kill(pid);
        }
    }
}
