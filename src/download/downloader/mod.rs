//! The downloader: a process that owns the download of one file. It carries out the plan's orders with worker
//! processes, marks blocks present when they report them, and gives the file its name at the end.

mod children;
mod hope;
mod reports;
mod said;
mod shortage;
mod task;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::landing::PIECE;
use super::plan::{Event, Order, Plan, Rules, WorkerId};
use super::progress::Figure;
use super::report::{Heard, Report, WorkerOrder};
use crate::faults;
use crate::hash::FileHash;
use crate::store::bitmap::Bitmap;
use crate::store::stamp;
use crate::sys::fork;
use crate::sys::letters::{self, letters};
use crate::sys::pipe;
use crate::sys::poll::wait_readable;
use crate::sys::signals::Signals;
use hope::heard;
use said::Said;
use shortage::Shortage;
pub use task::{Ending, Task};

/// How often the plan is asked though nothing happened: peers become due again, maps old, workers slow.
const TICK: Duration = Duration::from_millis(100);
/// How often the process that hashes the whole file is started again before that is an error.
const WHOLE_ATTEMPTS: u32 = 3;

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
    said: Said,
    /// What went wrong on our side; ends the download.
    error: Option<anyhow::Error>,
    /// When something arrived last, and how much had arrived then.
    heard: (Instant, u64),
    /// When that was looked at last.
    looked: Instant,
    shortage: Shortage,
    /// Whether it was said that nothing comes.
    stall_said: bool,
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
            Arc::clone(task.admission),
            random,
        );
        for peer in task.peers.iter() {
            plan.handle(Duration::ZERO, Event::Peer(peer));
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
            said: Said::default(),
            error: None,
            looked: Instant::now(),
            shortage: Shortage::default(),
            stall_said: false,
            heard: (heard(task), task.progress.get(Figure::Received)),
        })
    }

    /// Reserve, download, compare the hash of the whole, give the file its name.
    fn run(&mut self, signals: &Signals) -> anyhow::Result<Ending> {
        let geometry = self.task.cascade.geometry();
        // One that died may have been this far.
        self.task.progress.set(Figure::Syncing, 0);
        self.task.data.reserve(geometry.length())?;
        self.hash_whole_file().with_context(|| {
            let path = crate::text::escape_path(self.task.data.path());
            format!("cannot start the process that hashes {path}")
        })?;
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
            if !self.task.patient {
                self.shortage.check(self.workers.is_empty())?;
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
        self.task.progress.set(Figure::Syncing, 1);
        faults::at("syncing");
        self.task.data.finish(geometry.length())?;
        let modified = stamp::modified(self.task.data.reading());
        self.task.progress.set(
            Figure::Modified,
            modified.context("cannot read the complete file")?,
        );
        self.task.progress.set(
            Figure::Milliseconds,
            self.started.elapsed().as_millis() as u64,
        );
        Ok(Ending::Complete)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
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
        let sources = match self.is_stalled() {
            true => 0,
            false => self.plan.connected_peers(),
        };
        progress.set(Figure::Peers, sources as u64);
        progress.set(Figure::Contributors, self.plan.contributors() as u64);
        progress.set(Figure::IncompletePeers, self.plan.incomplete_peers() as u64);
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
                Heard::Peer(listed) => Event::Listed(listed),
                Heard::Own(address) => Event::Own(address),
            };
            self.plan.handle(self.now(), event);
        }
        Ok(())
    }
}
