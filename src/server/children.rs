//! The children of a server, from their fork until they are reaped.

use std::fmt;
use std::hash::RandomState;
use std::io;

use hashbrown::HashMap;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::service::Outcome;
use crate::sys::child::{self, Ended, How};
use crate::sys::uninherited::Uninherited;

/// The children that live, with what is known of each, which is their parent's alone: none of them may look here, nor
/// can it.
#[derive(Debug)]
pub struct Children<T> {
    table: HashMap<Pid, T, RandomState, Uninherited>,
    /// Whether they were killed, because their time was over.
    killed: bool,
}

/// None yet.
impl<T> Default for Children<T> {
    fn default() -> Self {
        Self {
            table: HashMap::with_hasher_in(RandomState::new(), Uninherited),
            killed: false,
        }
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
    /// Whether it has done what it was for.
    pub fn is_well(self) -> bool {
        self == Self::Exit(Outcome::Done)
    }
}

impl From<How> for End {
    fn from(how: How) -> Self {
        match how {
            How::Exited(status) => Self::Exit(Outcome::from_exit_status(status)),
            How::Killed(signal) => Self::Signal(signal),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(outcome) => f.write_str(outcome.describe()),
            Self::Signal(signal) => How::Killed(*signal).fmt(f),
        }
    }
}

impl<T> Children<T> {
    /// How many live.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Takes note of a child.
    pub fn insert(&mut self, pid: Pid, child: T) {
        self.table.insert(pid, child);
    }

    /// A child that lives.
    pub fn get_mut(&mut self, pid: Pid) -> Option<&mut T> {
        self.table.get_mut(&pid)
    }

    /// Reaps one child that ended, if there is one: ask until there is none, for signals coalesce and one CHLD may
    /// stand for many. It stays in the table until it is removed: what it reported before its end may be in the pipe
    /// only now, and must find it.
    ///
    /// # Errors
    /// As waitpid(2).
    pub fn reap(&self) -> io::Result<Option<(Pid, End)>> {
        let ended = child::ended().next().transpose()?;
        Ok(ended.map(|Ended { pid, how }| (pid, how.into())))
    }

    /// Forgets a child that was reaped; nothing where it is not of this table.
    pub fn remove(&mut self, pid: Pid) -> Option<T> {
        self.table.remove(&pid)
    }

    /// What the end of a child means for the connection that it served.
    pub fn outcome(&self, end: End) -> Outcome {
        match end {
            End::Exit(outcome) => outcome,
            // The last resort where time is over: see `crate::sys::alarm`.
            End::Signal(Signal::SIGALRM) => Outcome::TimedOut,
            End::Signal(Signal::SIGKILL) if self.killed => Outcome::Disconnected,
            End::Signal(_) => Outcome::Crashed,
        }
    }

    /// Asks all of them to finish.
    pub fn finish(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Ends all of them.
    pub fn kill(&mut self) {
        self.killed = true;
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        for pid in self.table.keys() {
            child::signal(*pid, signal);
        }
    }
}
