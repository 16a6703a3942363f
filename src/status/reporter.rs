//! The reporter: the process outside of a tracker's confinement that starts those who tell of it.
//!
//! It reads nothing, of nobody but the tracker. It is told where the tracker has made another registry, whose tables are
//! handed over; and it ends with the tracker, when it has removed the control socket.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::doors::Doors;
use super::service::Source;
use super::tracker::TrackerSource;
use crate::confine::{Confinement, Role};
use crate::logging::complain;
use crate::service::tracker::Tell;
use crate::sys::fork::Kept;
use crate::sys::poll::wait_readable;
use crate::sys::signals::Signals;
use crate::sys::{fork, passing};
use crate::tracker::roll::Roll;

/// How long the removal of the control socket is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nothing has to be looked at, unless something happens.
const LONG: Duration = Duration::from_secs(3600);

/// The reporter, from the side of the tracker.
#[derive(Debug)]
pub struct Reporter {
    socket: Arc<OwnedFd>,
    pid: Pid,
}

impl Reporter {
    /// Starts the process, where somebody is to be told.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(
        mut doors: Doors,
        source: TrackerSource,
        confinement: &Confinement,
    ) -> anyhow::Result<Option<Self>> {
        if doors.is_empty() {
            return Ok(None);
        }
        let (ours, theirs) = passing::pair()?;
        let keep = doors.descriptors();
        let kept = Kept::new(keep.iter().chain([&theirs.as_fd()]).map(AsRawFd::as_raw_fd));
        let pid = fork::spawn_leaf_keeping(&kept, || {
            let told = run(&mut doors, source, confinement, &theirs);
            told.map_or_else(
                |error| {
                    complain(&error.context("cannot tell the status"));
                    1
                },
                |()| 0,
            )
        });
        Ok(Some(Self {
            socket: Arc::new(ours),
            pid: pid.context("cannot start a process")?,
        }))
    }

    /// Which process it is.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The descriptor through which it is told.
    pub fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// How it is told of another registry.
    pub fn tell(&self) -> Tell {
        let socket = Arc::clone(&self.socket);
        Box::new(move |roll: &Roll| {
            if let Err(error) = roll.send(socket.as_fd()) {
                log::warn!("the status stays that of the configuration before: {error}");
            }
        })
    }

    /// Ends it, and waits a moment until it has removed the control socket.
    pub fn stop(&self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        let _ = wait_readable(&[Some(self.socket.as_fd())], Some(PATIENCE));
    }
}

/// The life of the process. No signal that can be blocked ends it: it ends with the tracker.
fn run(
    doors: &mut Doors,
    mut tracker: TrackerSource,
    confinement: &Confinement,
    socket: &OwnedFd,
) -> anyhow::Result<()> {
    SigSet::all().thread_block()?;
    let signals = Signals::new(&[Signal::SIGCHLD])?;
    confinement.leave()?;
    confinement.enter(Role::Reporter {
        directory: doors.directory(),
    })?;
    let mut source: Arc<dyn Source> = Arc::new(tracker.clone());
    loop {
        let due = doors.start(&source, confinement);
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        let fds = [Some(signals.as_fd()), Some(socket.as_fd())];
        let ready = wait_readable(&fds, Some(left.unwrap_or(LONG)))?;
        if ready[0] {
            signals.clear();
            reap(doors)?;
        }
        if ready[1] {
            let Some(passed) = passing::receive(socket.as_fd())? else {
                break;
            };
            tracker.roll = Roll::taken(passed)?;
            source = Arc::new(tracker.clone());
            doors.restart();
        }
    }
    doors.stop();
    Ok(())
}

fn reap(doors: &mut Doors) -> anyhow::Result<()> {
    loop {
        let (pid, how) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => (pid, format!("exit status {status}")),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                (pid, format!("signal {} ({signal})", signal as i32))
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        doors.ended(pid, &how);
    }
}
