//! A keeper: an unconfined process that starts the helpers of a confined process, and restarts each that dies.
//!
//! ```text
//! tracker    confined, with a child for each connection
//! ├─ keeper  reads nothing, of nobody: it forks, and waits
//! │  ├─ who writes the state      super::outside
//! │  └─ who reads files           super::reader
//! └─ keeper  below the root directory of the tracker
//!    └─ who tells how it is       crate::status::reporter
//! ```
//!
//! A confined process cannot start helpers itself: what it forks is as confined as it is. The keeper holds the helpers'
//! ends of the sockets, never both ends, so that a request made while a helper is dead is there for its successor. All
//! of them end with the confined process. If the keeper is killed, the helpers die, too, and the confined process finds
//! the sockets closed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use crate::sys::child::{self, Ended, How};
use crate::sys::fork::{self, Kept};
use crate::sys::poll::hung_up;

/// Exit status of a helper whose confined process is gone: nothing is to be restarted.
pub const ALONE: u8 = 0;
/// A helper that lives for less than this has ended soon.
const SOON: Duration = Duration::from_secs(1);
/// A helper that ended is restarted at once. If it keeps ending soon, this many times in a row; then the keeper rests
/// in between (and restarts no other helper meanwhile).
const AT_ONCE: u32 = 20;
const REST: Duration = Duration::from_secs(2);
/// The delay before a fork that failed is tried again.
const FORK_AGAIN: Duration = Duration::from_millis(100);
/// How long the end of a keeper and its helpers is waited for, and how often it is checked.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A helper's main function. It runs until the other end of the socket is closed, and returns the exit status.
pub type Life<'a> = Box<dyn Fn(&OwnedFd) -> u8 + Send + 'a>;

/// A helper that is yet to be started.
pub struct Helper<'a> {
    /// What it does, for the log: "writes x".
    pub task: String,
    /// Its end of the socket.
    pub socket: OwnedFd,
    /// Other descriptors that it needs, which `life` owns.
    pub keep: Vec<RawFd>,
    /// Its main function.
    pub life: Life<'a>,
}

impl Helper<'_> {
    fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        let also = self.keep.iter().copied();
        also.chain([self.socket.as_raw_fd()])
    }
}

/// Starts the keeper, which first runs `begin`, and the helpers, and waits until `begin` has returned. The file that
/// `begin` returns stays open in all of them as long as they live. They block all signals, since one sent to the
/// process group must not end them before the confined process has saved its state.
///
/// # Errors
/// As fork(2), and those of `begin`.
pub fn start(
    helpers: Vec<Helper<'_>>,
    begin: impl FnOnce() -> anyhow::Result<Option<File>>,
) -> anyhow::Result<Pid> {
    let (mut reader, writer) =
        io::pipe().context("cannot start the process that keeps others alive")?;
    let descriptors = helpers.iter().flat_map(Helper::descriptors);
    let kept = Kept::new(descriptors.chain([writer.as_raw_fd()]));
    let started = fork::spawn_leaf_keeping(&kept, move || {
        let _ = SigSet::all().thread_block();
        let shared = match begin() {
            Ok(shared) => shared,
            Err(error) => {
                // Where nobody hears it, nobody is left.
                let _ = (&writer).write_all(format!("{error:#}").as_bytes());
                return 1;
            }
        };
        drop(writer);
        match keep_alive(&helpers, shared.as_ref()) {
            Ok(()) => {
                // The others end as well, for the same reason.
                while let Ok(Some(_)) = child::wait_any() {}
                0
            }
            Err(error) => {
                let keeping = "cannot keep other processes alive";
                crate::logging::complain(&anyhow::Error::new(error).context(keeping));
                1
            }
        }
    });
    let pid = started.context("cannot start the process that keeps others alive")?;
    // Of one that died too soon to say anything, the helpers are gone, which whoever uses them sees.
    let mut said = String::new();
    reader
        .read_to_string(&mut said)
        .context("cannot hear from the process that keeps others alive")?;
    anyhow::ensure!(said.is_empty(), "{said}");
    Ok(pid)
}

/// Waits for the end of a keeper, and so of its helpers, once they have nobody left to help. The time is bounded: a
/// helper may hang on a disk.
///
/// This is because a service manager takes processes left behind by a daemon for a fault, and kills them.
pub fn wait_for_end(keeper: Pid) {
    let end = Instant::now() + PATIENCE;
    while let Ok(None) = child::try_wait(keeper)
        && Instant::now() < end
    {
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A helper and its process.
struct Alive<'a> {
    helper: &'a Helper<'a>,
    /// A file that it also keeps open.
    shared: Option<&'a File>,
    running: Option<Pid>,
    started: Instant,
    /// How many times in a row it has ended soon.
    ended_soon: u32,
}

/// The keeper's main loop. It returns when there is nobody left to help: a helper says so, or the socket turns out to
/// be closed when one is to be started.
fn keep_alive(helpers: &[Helper<'_>], shared: Option<&File>) -> io::Result<()> {
    let alive = |helper| Alive::new(helper, shared);
    let mut kept: Vec<Alive<'_>> = helpers.iter().map(alive).collect();
    loop {
        for one in &mut kept {
            if !one.start_if_ended()? {
                return Ok(());
            }
        }
        // Without a child there is nothing to wait for, but a process that could not be forked.
        let Some(Ended { pid, how }) = child::wait_any()? else {
            std::thread::sleep(FORK_AGAIN);
            continue;
        };
        if how == How::Exited(ALONE.into()) {
            return Ok(());
        }
        if let Some(one) = kept.iter_mut().find(|one| one.running == Some(pid)) {
            one.ended(how);
        }
    }
}

impl<'a> Alive<'a> {
    fn new(helper: &'a Helper<'a>, shared: Option<&'a File>) -> Self {
        Self {
            helper,
            shared,
            running: None,
            started: Instant::now(),
            ended_soon: 0,
        }
    }

    /// Returns whether there is still somebody to help.
    fn start_if_ended(&mut self) -> io::Result<bool> {
        if self.running.is_some() {
            return Ok(true);
        }
        let Helper {
            task, socket, life, ..
        } = self.helper;
        // One that ends at once would never come to say so.
        if hung_up(socket.as_fd())? {
            return Ok(false);
        }
        self.started = Instant::now();
        let shared = self.shared.map(AsRawFd::as_raw_fd);
        let kept = Kept::new(self.helper.descriptors().chain(shared));
        match fork::spawn_leaf_keeping(&kept, || {
            let _ = SigSet::all().thread_block();
            life(socket)
        }) {
            Ok(pid) => self.running = Some(pid),
            Err(error) => {
                log::warn!("cannot start the process that {task}: {error}; trying again");
                std::thread::sleep(FORK_AGAIN);
            }
        }
        Ok(true)
    }

    /// Records the end of the process, and rests if it ends soon too often.
    fn ended(&mut self, how: How) {
        let task = &self.helper.task;
        log::warn!("the process that {task} ended: {how}; it is started again");
        self.running = None;
        self.ended_soon = match self.started.elapsed() < SOON {
            true => self.ended_soon.saturating_add(1),
            false => 0,
        };
        if self.ended_soon > AT_ONCE {
            std::thread::sleep(REST);
        }
    }
}
