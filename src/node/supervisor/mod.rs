//! The supervisor's loop: starts roles that are due, reaps those that ended, shows progress.

mod downloads;
mod ends;
pub mod fetching;
mod files;
mod looking_up;
mod results;
mod role;
mod stop;
mod verifying;
mod vitals;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::display::{Display, REDRAW};
use super::files::{FileList, Wanted};
use super::handover::Handover;
use super::item::{Item, Stage};
use super::status::{NodeSource, publish};
use super::throttle::Throttle;
use super::{End, Place, Settings, TrackerAddress, announce_listeners, roles};
use crate::confine::reader::Reader;
use crate::events::Subject;
use crate::exit::Status;
use crate::hash::CascadeHash;
use crate::net::admission::Admission;
use crate::net::bucket::Bucket;
use crate::net::listen;
use crate::net::named::NamedPeers;
use crate::node::names::Names;
use crate::server::{Ledger, Limits};
use crate::service::blocks::News;
use crate::status::doors::Doors;
use crate::status::report::About;
use crate::status::service::Source;
use crate::sys::fork;
use crate::sys::poll::wait_readable;
use crate::sys::signals::Signals;
use crate::text::without_errno;
use role::Role;

/// How often files that are complete are looked at: somebody may have changed them.
const LOOK: Duration = Duration::from_secs(2);
/// How long connections wait for existing data to be verified.
const VERIFY_FIRST: Duration = Duration::from_secs(3);
/// The delay before a role that died is restarted.
const REST: Duration = Duration::from_secs(1);
/// How often the downloader of a file may die before the file is given up; a daemon never gives up.
const DEATHS: u32 = 5;

/// The state of a node.
#[derive(Debug)]
pub struct Supervisor<'a> {
    settings: &'a Settings,
    /// The files that are wanted now.
    list: FileList,
    /// Who reads that again, where it can be another one.
    reader: Option<Reader<FileList>>,
    place: Place,
    peers: NamedPeers,
    /// Who looks up their names and the trackers' again; and the downloads that began before there was news.
    names: Option<Names>,
    outdated: Vec<Pid>,
    items: Vec<Item>,
    /// Files that are new and were not opened yet.
    arriving: Vec<Wanted>,
    /// Files that are not wanted any more, and the processes that still work on them.
    leaving: Vec<(Pid, Item)>,
    /// Files that are not wanted any more, of which the listener does not know that yet.
    forgotten: Vec<(CascadeHash, u64)>,
    handover: Handover,
    limits: Limits,
    /// What became of the connections that were served.
    ledger: Arc<Ledger>,
    /// Who tells how this node is, and whether there is more to tell than they know.
    doors: Option<&'a mut Doors>,
    retell: bool,
    about: About,
    /// Which peers may be connected to: all downloads together keep the limits.
    admission: Arc<Admission>,
    /// The download limit, which all workers keep together.
    download: Option<Arc<Bucket>>,
    listener: Role,
    announcers: Vec<(TrackerAddress, Role)>,
    /// Who searches for cascade files that are not there.
    fetcher: Role,
    display: Display,
    /// The worst that happened so far.
    status: Status,
    /// When everything was there.
    finished: Option<Instant>,
    started: Instant,
    /// Whether it was said where the node listens.
    announced: bool,
    /// Workers in all.
    workers: u64,
    /// How many downloads were started.
    turns: u64,
    /// The user's commands that run, and for which file: its name for people, and for programs.
    commands: Vec<(Pid, String, Subject)>,
}

impl<'a> Supervisor<'a> {
    /// Nothing is started yet; `status` is how it went so far.
    pub fn new(
        settings: &'a Settings,
        trackers: Vec<TrackerAddress>,
        peers: NamedPeers,
        place: Place,
        items: Vec<Item>,
        status: Status,
        admission: Arc<Admission>,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let serves = !place.listeners.is_empty();
        let Throttle {
            upload,
            download,
            turns,
        } = Throttle::new(&settings.sources)?;
        Ok(Self {
            settings,
            list: settings.files.clone(),
            reader: None,
            admission,
            download,
            peers,
            names: None,
            outdated: Vec::new(),
            display: Display::new(items.len(), &settings.reporting, &settings.events),
            items,
            arriving: Vec::new(),
            leaving: Vec::new(),
            forgotten: Vec::new(),
            handover: Handover::new()?,
            limits: Limits {
                upload,
                turns,
                ..settings.limits.clone()
            },
            ledger: Arc::new(Ledger::new()?),
            doors: None,
            retell: false,
            about: About::now(&place.listeners)?,
            listener: if serves { Role::Due(now) } else { Role::None },
            place,
            announcers: trackers
                .into_iter()
                .map(|tracker| (tracker, Role::Due(now)))
                .collect(),
            fetcher: Role::None,
            status,
            finished: None,
            started: now,
            announced: false,
            workers: settings
                .sources
                .workers
                .map_or_else(default_workers, u64::from),
            turns: 0,
            commands: Vec::new(),
        })
    }

    /// Tells there how it is.
    pub fn tell_at(&mut self, doors: &'a mut Doors) {
        self.doors = Some(doors);
    }

    /// Runs until everything is done, or a signal.
    ///
    /// # Errors
    /// Where the loop itself fails.
    pub fn run(&mut self, signals: &Signals) -> anyhow::Result<End> {
        fork::assert_single_threaded()?;
        self.items.iter().for_each(|item| self.tell_start(item));
        let grace = self.limits.grace;
        loop {
            // All of it may touch a file system that hangs.
            if let Some(end) = signals.with_deadline(grace, || self.take_steps())?? {
                return Ok(end);
            }
            let pause = self.pause();
            wait_for_signal(signals, pause)?;
            if let Some(signal) = signals.take_any(self.settings.ending()) {
                return Ok(End::Signal(signal));
            }
            signals.with_deadline(grace, || self.follow_signals(signals))??;
            self.feel_pulse();
        }
    }

    /// Starts what is due, and shows how far it is; returns the end, if this is it.
    fn take_steps(&mut self) -> anyhow::Result<Option<End>> {
        self.open_arriving();
        self.follow_names();
        self.items.iter_mut().for_each(Item::notice_onlookers);
        self.notice_changes();
        self.notice_read_errors();
        self.start_verifiers()?;
        self.start_roles()?;
        self.start_fetcher();
        self.hand_over();
        self.take_turns();
        self.start_downloaders();
        self.share_out_workers();
        self.tell();
        self.display.update(&self.items);
        self.tell_checked();
        self.tell_status();
        Ok(self.end())
    }

    /// Does what signals ask for that do not end the node, and reaps its children.
    fn follow_signals(&mut self, signals: &Signals) -> anyhow::Result<()> {
        if signals.take(Signal::SIGUSR1) {
            self.log_status();
        }
        if signals.take(Signal::SIGHUP) {
            signals.reloading(|| self.read_again());
        }
        self.reap()
    }

    /// Lets those tell how the node is who are asked, and know of all files.
    fn tell(&mut self) {
        self.items.iter().for_each(publish);
        let retell = std::mem::take(&mut self.retell);
        let Some(doors) = &mut self.doors else { return };
        if retell {
            doors.restart();
        }
        if doors.are_waiting() {
            let source = Arc::new(NodeSource::new(
                &self.about,
                &self.ledger,
                &self.items,
                &self.list,
            ));
            doors.start(&(source as Arc<dyn Source>), &self.settings.confinement);
        }
    }

    /// The longest wait, unless a signal arrives.
    fn pause(&self) -> Duration {
        let busy = |item: &Item| !matches!(item.stage, Stage::Complete | Stage::GivenUp(_));
        let doors = self.doors.as_ref();
        let starting = !self.announced
            || self.listener.is_waiting()
            || doors.is_some_and(|doors| doors.are_waiting());
        let ending = !self.settings.daemon || !self.leaving.is_empty();
        if starting || ending || self.items.iter().any(busy) {
            REDRAW
        } else {
            LOOK
        }
    }

    /// Whether this is the end.
    fn end(&mut self) -> Option<End> {
        let over = self
            .items
            .iter()
            .all(|item| matches!(item.stage, Stage::Complete | Stage::GivenUp(_)));
        let serves = self.items.iter().any(|item| item.stage == Stage::Complete);
        let waits =
            self.list.watch.is_some() || !self.leaving.is_empty() || !self.commands.is_empty();
        if !over || waits || (self.settings.daemon && serves) {
            return None;
        }
        let seeds = serves && self.listener != Role::None;
        if self.finished.is_none() && seeds && !self.settings.seed_for.is_zero() {
            self.say_seeding();
        }
        let finished = *self.finished.get_or_insert_with(Instant::now);
        let stays = self.settings.seed_for.max(self.farewell(finished));
        (!seeds || finished.elapsed() >= stays).then(|| End::Status(self.outcome()))
    }

    /// Somebody wrote to a file that was complete. It is theirs: nothing of it is downloaded again. What is still right
    /// is served on, once that is known.
    fn notice_changes(&mut self) {
        for item in &mut self.items {
            if item.stage == Stage::Complete && item.was_changed() {
                log::warn!(
                    "{} was changed; it is verified again, and served as far as it is right",
                    item.name
                );
                item.stage = Stage::Unverified;
                item.left_alone = true;
            }
        }
    }

    /// A block could not be read when it was to be served: it is not served any more, and the file is verified again,
    /// for its neighbours may be damaged as well.
    fn notice_read_errors(&mut self) {
        for error in self.handover.read_errors.take() {
            let mut items = self.items.iter_mut();
            let Some(item) = items.find(|item| error.is_of(item.id)) else {
                continue;
            };
            if item.stage != Stage::Complete || !item.present.get(error.block) {
                continue;
            }
            item.present.unset(error.block);
            log::error!(
                "cannot read block {} of {}: {}; it is not served any more, and the file is verified again",
                error.block,
                item.name,
                without_errno(&io::Error::from_raw_os_error(error.errno).to_string())
            );
            item.stage = Stage::Unverified;
            item.left_alone = true;
            item.damaged = true;
        }
    }

    /// Starts the listener and the announcers that are due.
    ///
    /// The data of small files are verified before any client is served, because a client that was told that a block is
    /// not present may not ask again. For long files that would take too long; they are served from their first
    /// verified block on. Where a file may be replaced, what will be served is known only when it is verified. Until then
    /// connections wait in the backlog.
    fn start_roles(&mut self) -> anyhow::Result<()> {
        let is_early = self.started.elapsed() < VERIFY_FIRST;
        let overrides = self.overrides();
        let is_waited_for = |item: &Item| {
            matches!(item.stage, Stage::Unverified | Stage::Verifying(_))
                && (is_early || !item.data.is_settled(overrides))
        };
        if self.items.iter().any(is_waited_for) {
            return Ok(());
        }
        if !std::mem::replace(&mut self.announced, true) {
            announce_listeners(&self.place.listeners, self.settings)?;
        }
        if self.listener.is_due() {
            // A listener that was ended by a signal shut the sockets down.
            let place = &mut self.place;
            let backlog = self.limits.backlog;
            // It begins with what there is now; what was handed to the one before is old.
            self.handover.take();
            self.forgotten.clear();
            self.items
                .iter_mut()
                .for_each(|item| item.handed_over = true);
            let opened = listen::again(&mut place.listeners, &place.addresses, backlog);
            let pulse = self.settings.vitals.pulse();
            pulse.inspect(|pulse| pulse.begin());
            self.listener = Role::started(
                "the listener",
                opened.and_then(|()| {
                    roles::start_listener(
                        &self.place,
                        &self.items,
                        &self.handover,
                        self.settings,
                        &self.limits,
                        &self.ledger,
                        &self.admission,
                    )
                }),
            );
            self.tell_ready();
        }
        if self.items.iter().any(|item| item.announced) {
            let confinement = &self.settings.confinement;
            let due = self.announcers.iter_mut().enumerate();
            let due =
                due.filter(|(_, (tracker, role))| role.is_due() && !tracker.addresses.is_empty());
            for (number, (tracker, role)) in due {
                *role = Role::started(
                    "an announcer",
                    roles::start_announcer(
                        (number, tracker),
                        &self.place,
                        &self.items,
                        confinement,
                        &self.admission,
                        self.names.as_ref(),
                    ),
                );
            }
        }
        Ok(())
    }
}

/// The number of cores, at least 4: a worker waits for its peer more than it computes.
fn default_workers() -> u64 {
    std::thread::available_parallelism().map_or(4, |cores| cores.get().max(4) as u64)
}

/// Waits for a signal, or until it is time to look again.
fn wait_for_signal(signals: &Signals, pause: Duration) -> io::Result<()> {
    if wait_readable(&[Some(signals.as_fd())], Some(pause))?[0] {
        signals.clear();
    }
    Ok(())
}
