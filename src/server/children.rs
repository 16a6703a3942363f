//! The children of a server, from their fork until they are reaped.

use std::collections::HashMap;
use std::fmt;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::service::Outcome;

/// The children that live, with what is known of each.
#[derive(Debug)]
pub struct Children<T>(HashMap<Pid, T>);

/// None yet.
impl<T> Default for Children<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Exit(Outcome),
    /// Of a signal.
    Signal(Signal),
}

impl End {
    /// What that means for the connection that it served.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Exit(outcome) => outcome,
            Self::Signal(_) => Outcome::Crashed,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(outcome) => f.write_str(outcome.describe()),
            Self::Signal(signal) => write!(f, "signal {} ({signal})", *signal as i32),
        }
    }
}

impl<T> Children<T> {
    /// How many live.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes note of a child.
    pub fn insert(&mut self, pid: Pid, child: T) {
        self.0.insert(pid, child);
    }

    /// A child that lives.
    pub fn get_mut(&mut self, pid: Pid) -> Option<&mut T> {
        self.0.get_mut(&pid)
    }

    /// Reaps one child that ended, if there is one: ask until there is none, for signals coalesce and one CHLD may
    /// stand for many. It stays in the table until it is removed: what it reported before its end may be in the pipe
    /// only now, and must find it.
    ///
    /// # Errors
    /// As waitpid(2).
    pub fn reap(&self) -> io::Result<Option<(Pid, End)>> {
        loop {
            let (pid, end) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => {
                    (pid, End::Exit(Outcome::from_exit_status(status)))
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, End::Signal(signal)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            return Ok(Some((pid, end)));
        }
    }

    /// Forgets a child that was reaped; nothing where it is not of this table.
    pub fn remove(&mut self, pid: Pid) -> Option<T> {
        self.0.remove(&pid)
    }

    /// Sends all of them a signal.
    pub fn signal(&self, signal: Signal) {
        for pid in self.0.keys() {
            // A child that just ended is a zombie of ours until it is reaped: the pid cannot be another's.
            let _ = kill(*pid, signal);
        }
    }
}
