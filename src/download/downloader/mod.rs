//! The downloader: a process that owns the download of one file. It carries out the plan's orders with worker
//! processes, marks blocks present when they report them, and gives the file its name at the end.

mod children;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::landing::PIECE;
use super::plan::{Event, Failure, Order, Plan, Rules, WorkerId};
use super::progress::{Figure, Progress};
use super::reason::{Reason, ReasonKind};
use super::report::{Heard, Report, WorkerOrder, WorkerReport};
use crate::cascade_file::CascadeFile;
use crate::confine::Confinement;
use crate::events::{self, Events, Subject};
use crate::faults;
use crate::hash::{CascadeHash, FileHash};
use crate::logging;
use crate::net::bucket::Bucket;
use crate::store::bitmap::Bitmap;
use crate::store::data_file::DataFile;
use crate::sys::fork;
use crate::sys::letters::{self, Received, letters};
use crate::sys::pipe::{self, Receiver};
use crate::sys::poll::wait_readable;
use crate::sys::signals::Signals;

/// How often the plan is asked though nothing happened: peers become due again, maps old, workers slow.
const TICK: Duration = Duration::from_millis(100);
/// How often the process that hashes the whole file is started again before that is an error.
const WHOLE_ATTEMPTS: u32 = 3;

/// A loop that did not come round for so long was stopped (SIGSTOP, or a machine that slept).
const STOPPED: Duration = Duration::from_secs(1);
/// The shortest turn of a download that has a timeout.
const CHANCE: Duration = Duration::from_secs(2);

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
    pub peers: &'a [SocketAddr],
    /// Peers that announcers hear of; nothing where there is no tracker.
    pub found: Option<&'a Receiver<Heard>>,
    /// Bytes per second, over all workers of all files.
    pub limit: Option<&'a Bucket>,
    /// Give up when nothing arrived for this long.
    pub timeout: Option<Duration>,
    /// When something arrived last, before this process began.
    pub arrived: Instant,
    /// Where failures are told, beside the log.
    pub events: Events,
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

/// Downloads what is missing; the whole life of the process.
pub fn run(task: &Task<'_>, signals: &Signals) -> Ending {
    fork::reseed();
    faults::at("downloader");
    let ending = Downloader::new(task).and_then(|mut downloader| {
        let ending = downloader.run(signals);
        downloader.dismiss_all();
        ending
    });
    ending.unwrap_or_else(|error| {
        crate::logging::complain(&error);
        Ending::Failed
    })
}

struct Downloader<'a> {
    task: &'a Task<'a>,
    started: Instant,
    plan: Plan,
    workers: HashMap<WorkerId, Handle>,
    sender: letters::Sender<Report>,
    receiver: letters::Receiver<Report>,
    whole: Whole,
    /// What went wrong on our side; ends the download.
    error: Option<anyhow::Error>,
    /// When something arrived last, and how much had arrived then.
    heard: (Instant, u64),
    /// When that was looked at last.
    looked: Instant,
}

/// A worker process as its parent sees it.
struct Handle {
    pid: Pid,
    peer: SocketAddr,
    orders: File,
    /// Orders that it was not sent yet.
    unsent: Vec<u8>,
    map: Arc<Bitmap>,
}

/// The process that hashes the whole file.
struct Whole {
    wake: EventFd,
    pid: Option<Pid>,
    attempts: u32,
    hash: Option<FileHash>,
    /// No block before this one is missing.
    prefix: u32,
}

/// From when on nothing has arrived. A turn that ended without a byte counts, but each turn is a chance.
fn heard(task: &Task<'_>) -> Instant {
    let now = Instant::now();
    let chance = task
        .timeout
        .and_then(|timeout| now.checked_sub(timeout.saturating_sub(CHANCE)));
    chance.map_or(task.arrived, |chance| chance.max(task.arrived))
}

impl<'a> Downloader<'a> {
    fn new(task: &'a Task<'a>) -> anyhow::Result<Self> {
        let (sender, receiver) = letters()?;
        let rules = Rules {
            max_workers: 1,
            spread: task.spread,
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            maps: task.maps,
            unshared_above: PIECE as u64,
            gives_up: task.timeout.is_none(),
        };
        let random = fastrand::Rng::new();
        let mut plan = Plan::new(
            task.cascade.geometry(),
            |block| task.present.get(block),
            rules,
            random,
        );
        for peer in task.peers {
            plan.handle(Duration::ZERO, Event::Peer(*peer));
        }
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        Ok(Self {
            task,
            started: Instant::now(),
            plan,
            workers: HashMap::new(),
            sender,
            receiver,
            whole: Whole {
                wake,
                pid: None,
                attempts: 0,
                hash: None,
                prefix: 0,
            },
            error: None,
            looked: Instant::now(),
            heard: (heard(task), task.progress.get(Figure::Received)),
        })
    }

    /// Reserve, download, compare the hash of the whole, give the file its name.
    fn run(&mut self, signals: &Signals) -> anyhow::Result<Ending> {
        let geometry = self.task.cascade.geometry();
        self.task.data.reserve(geometry.length())?;
        self.hash_whole_file()?;
        while !(self.plan.is_complete() && self.whole.hash.is_some()) {
            self.carry_out_orders()?;
            if let Some(ending) = self.hopeless() {
                return Ok(ending);
            }
            self.wait(signals)?;
            if signals.take(Signal::SIGTERM) {
                return Ok(Ending::Stopped);
            }
            self.apply_reports()?;
            self.reap()?;
            self.meet_found_peers()?;
            self.publish_figures();
            if let Some(error) = self.error.take() {
                return Err(error);
            }
        }
        self.dismiss_workers();
        self.publish_figures();
        if self.whole.hash != Some(self.task.cascade.file_hash()) {
            anyhow::bail!(
                "cannot complete {}: every block is right, but the file as a whole is not what its cascade file says",
                crate::text::escape_path(self.task.data.path())
            );
        }
        self.task.data.finish(geometry.length())?;
        self.task.progress.set(
            Figure::Milliseconds,
            self.started.elapsed().as_millis() as u64,
        );
        Ok(Ending::Complete)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether there is nothing left to wait for.
    fn hopeless(&mut self) -> Option<Ending> {
        let path = || crate::text::escape_path(self.task.data.path());
        let received = self.task.progress.get(Figure::Received);
        let now = Instant::now();
        let asleep = now.duration_since(std::mem::replace(&mut self.looked, now));
        if received != self.heard.1 || self.plan.is_complete() {
            self.heard = (now, received);
        } else if asleep > STOPPED {
            // This process was stopped, and its workers with it: that time is not the peers' fault.
            self.heard.0 += asleep;
        }
        let missing = self.task.present.blocks() - self.task.present.count();
        let missing = || {
            format!(
                "{missing} of {} blocks are missing",
                self.task.present.blocks()
            )
        };
        if let Some(timeout) = self.task.timeout
            && self.heard.0.elapsed() >= timeout
        {
            let timeout = humantime::format_duration(timeout);
            crate::logging::fail(format_args!(
                "cannot complete {}: nothing arrived for {timeout}; {}",
                path(),
                missing()
            ));
            return Some(Ending::Missing);
        }
        let hopeless = !self.task.patient && self.task.found.is_none() && self.plan.is_exhausted();
        if hopeless && !self.plan.is_complete() {
            crate::logging::fail(format_args!(
                "cannot complete {}: no peer is left to ask; {}",
                path(),
                missing()
            ));
            return Some(Ending::Missing);
        }
        None
    }

    fn wait(&self, signals: &Signals) -> io::Result<()> {
        let found = self.task.found.map(AsFd::as_fd);
        let fds = [Some(signals.as_fd()), Some(self.receiver.as_fd()), found];
        let ready = wait_readable(&fds, Some(TICK))?;
        if ready[0] {
            signals.clear();
        }
        Ok(())
    }

    fn publish_figures(&mut self) {
        let progress = self.task.progress;
        progress.set(Figure::Peers, self.plan.connected_peers() as u64);
        progress.set(Figure::Contributors, self.plan.contributors() as u64);
        progress.set(Figure::Wanted, self.plan.wants_workers(self.now()).into());
        let waste = self.plan.waste();
        progress.set(Figure::Requests, waste.requests);
        progress.set(Figure::InVain, waste.in_vain);
    }

    fn carry_out_orders(&mut self) -> io::Result<()> {
        self.plan
            .set_max_workers(self.task.progress.get(Figure::Workers) as usize);
        while let Some(order) = self.plan.poll(self.now()) {
            match order {
                Order::Hire(id, peer) => self.hire(id, peer)?,
                Order::Fetch(id, block) => self.order(id, WorkerOrder { block, map: false }),
                Order::AskMap(id, block) => self.order(id, WorkerOrder { block, map: true }),
                Order::Retire(id) => self.dismiss(id),
            }
        }
        self.send_orders();
        Ok(())
    }

    fn apply_reports(&mut self) -> anyhow::Result<()> {
        loop {
            match self.receiver.receive()? {
                Received::Record(pid, report) if !self.may_report(pid, &report) => {
                    log::warn!("a report from pid {pid}, which has none to make, was ignored");
                }
                Received::Record(_, Report::Worker(id, report)) => self.apply(id, report),
                Received::Record(_, Report::WholeFile(hash)) => self.whole.hash = Some(hash),
                Received::Record(_, Report::WholeFileFailed(errno)) => {
                    let error = io::Error::from_raw_os_error(errno);
                    anyhow::bail!(
                        "cannot read {}: {error}",
                        crate::text::escape_path(self.task.data.path())
                    );
                }
                Received::Garbage(pid) => {
                    log::warn!("a report of pid {pid} that is none was ignored");
                }
                Received::Empty => return Ok(()),
                // This process has a sending end itself.
                Received::Closed => anyhow::bail!("a worker has shut down the socket for reports"),
            }
        }
    }

    /// Whether it is for this child to say that: a worker speaks for itself, and of the whole file only the process that
    /// hashes it.
    fn may_report(&self, pid: Pid, report: &Report) -> bool {
        match report {
            // Of one that was dismissed there may still be letters; they are for nobody.
            Report::Worker(id, _) => self.workers.get(id).is_none_or(|worker| worker.pid == pid),
            Report::WholeFile(_) | Report::WholeFileFailed(_) => self.whole.pid == Some(pid),
        }
    }

    /// Applies a worker's report, as far as it may make it.
    fn apply(&mut self, id: WorkerId, report: WorkerReport) {
        let Some(worker) = self.workers.get(&id) else {
            return;
        };
        let (now, peer, map) = (self.now(), worker.peer, Arc::clone(&worker.map));
        match report {
            WorkerReport::Fetched(blocks) => {
                blocks
                    .into_iter()
                    .for_each(|block| self.fetched(now, id, block));
                self.advance_prefix();
            }
            WorkerReport::Absent(block) => self.plan.handle(now, Event::Absent(id, block)),
            WorkerReport::Skipped(block) => self.plan.handle(now, Event::Skipped(id, block)),
            WorkerReport::Map(block) => self
                .plan
                .handle(now, Event::Map(id, block, &map.to_bytes())),
            WorkerReport::NoMap => self.plan.handle(now, Event::NoMap(id)),
            WorkerReport::Failed(failure, reason) => {
                self.complain(peer, failure, reason);
                self.plan.handle(now, Event::Failed(id, failure));
            }
        }
    }

    fn fetched(&mut self, now: Duration, id: WorkerId, block: u32) {
        if !self.plan.expects(id, block) {
            log::warn!("worker {id} reported a block that it was not asked for");
            return;
        }
        if !self.task.present.get(block) {
            let length = self.task.cascade.geometry().block_length(block);
            self.task.progress.add(Figure::Fetched, length);
        }
        self.task.present.set(block);
        self.plan.handle(now, Event::Fetched(id, block));
    }

    fn complain(&mut self, peer: SocketAddr, failure: Failure, reason: Reason) {
        self.task.events.emit(|| events::Event::Failure {
            file: Subject::new(self.task.data.path(), &self.task.hash),
            peer,
            block: reason.block(),
            kind: failure.keyword(reason.kind),
            reason: reason.to_string(),
        });
        let say = |level, line: std::fmt::Arguments<'_>| logging::about(peer, level, line);
        match failure {
            Failure::Ours if reason.kind == ReasonKind::CannotWrite => {
                let path = crate::text::escape_path(self.task.data.path());
                self.error = Some(anyhow::anyhow!("cannot complete {path}: {reason}"));
            }
            Failure::Lied => say(
                Level::Warn,
                format_args!("{peer} is not asked again: {reason}"),
            ),
            Failure::Ours => say(
                Level::Warn,
                format_args!("a worker for {peer} failed: {reason}"),
            ),
            // Trackers name many that are gone; whom the user named should be there.
            Failure::Unreachable if !self.task.peers.contains(&peer) => {
                say(Level::Debug, format_args!("cannot reach {peer}: {reason}"));
            }
            Failure::Unreachable => {
                say(
                    Level::Info,
                    format_args!("cannot reach {peer}: {reason}; is 'cascade peer' running there?"),
                );
            }
            Failure::Silent | Failure::UnknownHash => say(
                Level::Info,
                format_args!("cannot download from {peer}: {reason}"),
            ),
        }
    }

    /// Tells the process that hashes the whole file that it can go on.
    fn advance_prefix(&mut self) {
        let before = self.whole.prefix;
        while self.whole.prefix < self.task.present.blocks()
            && self.task.present.get(self.whole.prefix)
        {
            self.whole.prefix += 1;
        }
        if self.whole.prefix > before {
            // It cannot overflow: every write stands for a block.
            let _ = self.whole.wake.write(1);
        }
    }

    fn meet_found_peers(&mut self) -> io::Result<()> {
        let Some(found) = self.task.found else {
            return Ok(());
        };
        while let pipe::Received::Record(heard) = found.receive()? {
            let event = match heard {
                Heard::Peer(address) => Event::Peer(address),
                Heard::Own(address) => Event::Own(address),
            };
            self.plan.handle(self.now(), event);
        }
        Ok(())
    }
}
