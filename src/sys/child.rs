//! Children of this process: signalling them, waiting for them, and how they ended.
//!
//! A child that has ended stays a zombie, and keeps its pid, until its parent reaps it. So a pid that has not been
//! reaped yet can be signalled safely: it cannot have passed to another process.

use std::fmt;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A child that has ended and was reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its process ID, which may belong to another process from now on.
    pub pid: Pid,
    /// How it ended.
    pub how: How,
}

/// How a process ended. Displayed as `exit status 3` or `signal 9 (SIGKILL)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Killed(Signal),
}

impl How {
    /// The exit status, unless a signal killed the process.
    pub fn status(self) -> Option<i32> {
        match self {
            Self::Exited(status) => Some(status),
            Self::Killed(_) => None,
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Killed(signal) => write!(f, "signal {} ({signal})", *signal as i32),
        }
    }
}

/// Reaps the children that have ended, one at each step, without waiting for any that has not. Iterate until there is
/// none left: pending signals coalesce, and one SIGCHLD may stand for many children.
///
/// # Errors
/// As waitpid(2).
#[inline]
pub fn ended() -> impl Iterator<Item = io::Result<Ended>> {
    std::iter::from_fn(|| reap(None, Some(WaitPidFlag::WNOHANG)).transpose())
}

/// Waits until a child ends, and reaps it. Returns `None` at once where there is no child.
///
/// # Errors
/// As waitpid(2).
pub fn wait_any() -> io::Result<Option<Ended>> {
    reap(None, None)
}

/// Waits until this child ends, and reaps it.
///
/// # Errors
/// As waitpid(2); [`io::ErrorKind::NotFound`] where it is no child of this process, or was reaped before.
pub fn wait(child: Pid) -> io::Result<How> {
    let ended = reap(Some(child), None)?;
    ended.map(|ended| ended.how).ok_or_else(no_such_child)
}

/// Reaps this child if it has ended; returns `None` while it runs.
///
/// # Errors
/// As [`wait`].
pub fn try_wait(child: Pid) -> io::Result<Option<How>> {
    match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(None),
        Ok(status) => Ok(ended_with(status).map(|ended| ended.how)),
        Err(Errno::ECHILD) => Err(no_such_child()),
        Err(error) => Err(error.into()),
    }
}

/// Sends a signal to a child that has not been reaped. It may have ended already; that is no error.
pub fn signal(child: Pid, signal: Signal) {
    let _ = signal::kill(child, signal);
}

/// Kills a child with SIGKILL and reaps it.
pub fn kill(child: Pid) {
    signal(child, Signal::SIGKILL);
    let _ = wait(child);
}

/// waitpid(2), restarted where a signal interrupts it. `None` where no child has ended, or there is no child.
#[inline]
fn reap(child: Option<Pid>, flags: Option<WaitPidFlag>) -> io::Result<Option<Ended>> {
    loop {
        match waitpid(child, flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(status) => {
                if let Some(ended) = ended_with(status) {
                    return Ok(Some(ended));
                }
            }
        }
    }
}

/// The end of a child, where the status tells of one. (A debugger that traces a child sees other changes of state.)
#[inline]
fn ended_with(status: WaitStatus) -> Option<Ended> {
    match status {
        WaitStatus::Exited(pid, status) => Some(Ended {
            pid,
            how: How::Exited(status),
        }),
        WaitStatus::Signaled(pid, signal, _) => Some(Ended {
            pid,
            how: How::Killed(signal),
        }),
        _ => None,
    }
}

fn no_such_child() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such child process")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn start(script: &str) -> Pid {
        let child = Command::new("sh").args(["-c", script]).spawn();
        Pid::from_raw(child.expect("a shell").id().cast_signed())
    }

    #[test]
    fn a_child_that_exits_has_a_status() {
        let how = wait(start("exit 3")).expect("a child");
        assert_eq!(how, How::Exited(3));
        assert_eq!(how.status(), Some(3));
        assert_eq!(how.to_string(), "exit status 3");
    }

    #[test]
    fn a_child_that_a_signal_kills_has_none() {
        let how = wait(start("kill -KILL $$")).expect("a child");
        assert_eq!(how, How::Killed(Signal::SIGKILL));
        assert_eq!(how.status(), None);
        assert_eq!(how.to_string(), "signal 9 (SIGKILL)");
    }

    #[test]
    fn a_child_that_runs_is_told_from_one_that_is_gone() {
        let child = start("exec sleep 60");
        assert_eq!(try_wait(child).expect("a child"), None);
        kill(child);
        let gone = try_wait(child).expect_err("a child that was reaped");
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
