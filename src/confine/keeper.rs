//! A keeper: a process outside of the confinement that starts the helpers of a confined process, and starts again
//! each that ended.
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
//! A confined process cannot start them: what it forks is confined as it is. The keeper has both ends of no
//! conversation, but the helper's end of each, so that what was asked while a helper was dead is there for the next
//! one. All of them end with the confined process. Where the keeper itself is killed they end, too, and the confined
//! process finds the other ends of its conversations closed.

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

/// With this status a helper says that whom it helped is gone: there is nothing to start again.
pub const ALONE: u8 = 0;
/// Whoever ends sooner than that after its start ended soon.
const SOON: Duration = Duration::from_secs(1);
/// A helper that ended is started again at once. If it ends soon, again and again, it is only so often; then it rests
/// in between. (The others wait as long, should they end meanwhile.)
const AT_ONCE: u32 = 20;
const REST: Duration = Duration::from_secs(2);
/// How long after a fork that failed the next one is tried.
const FORK_AGAIN: Duration = Duration::from_millis(100);
/// How long the end of all that is waited for, and how often is looked.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What a helper does in its process, until the other end is closed: the exit status.
pub type Life<'a> = Box<dyn Fn(&OwnedFd) -> u8 + Send + 'a>;

/// A process that helps, before it is started.
pub struct Helper<'a> {
    /// What it does, for the log: "writes x".
    pub task: String,
    /// Its end of the conversation.
    pub socket: OwnedFd,
    /// What else it needs, which `life` owns.
    pub keep: Vec<RawFd>,
    /// What it does.
    pub life: Life<'a>,
}

impl Helper<'_> {
    fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        let also = self.keep.iter().copied();
        also.chain([self.socket.as_raw_fd()])
    }
}

/// Starts the keeper, where `begin` runs first, and the helpers, and waits until it has begun. The file that `begin`
/// answers is open in all of them for as long as they live. They end of no signal that can be blocked: one to the whole
/// group must not end them before the confined process has saved what it had.
///
/// # Errors
/// As fork(2), and those of `begin`.
pub fn start(
    helpers: Vec<Helper<'_>>,
    begin: impl FnOnce() -> anyhow::Result<Option<File>>,
) -> anyhow::Result<Pid> {
    let (mut reader, writer) = io::pipe()?;
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
                crate::logging::complain(&error.into());
                1
            }
        }
    });
    let pid = started.context("cannot start the process that keeps others alive")?;
    // Of one that died too soon to say anything, the helpers are gone, which whoever uses them sees.
    let mut said = String::new();
    reader.read_to_string(&mut said)?;
    anyhow::ensure!(said.is_empty(), "{said}");
    Ok(pid)
}

/// Waits for the end of a keeper whose helpers have nobody left to help, and so of them. But not for long: one may hang at
/// a disk, and ends then as it can.
///
/// A service manager takes what is left when its daemon has ended for what went wrong, and kills it.
pub fn wait_for_end(keeper: Pid) {
    let end = Instant::now() + PATIENCE;
    while let Ok(None) = child::try_wait(keeper)
        && Instant::now() < end
    {
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A helper, and its process.
struct Alive<'a> {
    helper: &'a Helper<'a>,
    /// What it has open as well.
    shared: Option<&'a File>,
    running: Option<Pid>,
    started: Instant,
    /// How many times in a row it has ended soon.
    ended_soon: u32,
}

/// The life of the keeper: until there is nobody left to help, as a helper says, or as is seen when one is to be started.
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

    /// Answers whether there is somebody to help.
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

    /// Takes note of the end, and rests where it comes too often.
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
