//! The table of a server's children, from fork to reaping.

use std::fmt;
use std::hash::RandomState;
use std::io;

use hashbrown::HashMap;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::service::Outcome;
use crate::sys::child::{self, Ended, How};
use crate::sys::uninherited::Uninherited;

/// The live children and what their parent knows about each. The table lies in memory that children do not inherit, so
/// none of them can read or modify it.
#[derive(Debug)]
pub struct Children<T> {
    table: HashMap<Pid, T, RandomState, Uninherited>,
    /// Whether they were killed at the end of the grace period.
    killed: bool,
}

/// An empty table.
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
    /// It exited.
    Exit(Outcome),
    /// A signal killed it.
    Signal(Signal),
}

impl End {
    /// Whether it completed its task.
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
    /// The number of live children.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Enters a child that was just forked.
    pub fn insert(&mut self, pid: Pid, child: T) {
        self.table.insert(pid, child);
    }

    /// The entry of a live child.
    pub fn get_mut(&mut self, pid: Pid) -> Option<&mut T> {
        self.table.get_mut(&pid)
    }

    /// Reaps one child that has ended, if there is one. Call it until it returns `None`: pending signals coalesce, and
    /// one SIGCHLD may stand for several children. The child stays in the table until it is removed, because reports
    /// that it made before its end may still be queued, and are matched against the table.
    ///
    /// # Errors
    /// As waitpid(2).
    pub fn reap(&self) -> io::Result<Option<(Pid, End)>> {
        let ended = child::ended().next().transpose()?;
        Ok(ended.map(|Ended { pid, how }| (pid, how.into())))
    }

    /// Removes a child that was reaped; `None` where it is not in this table.
    pub fn remove(&mut self, pid: Pid) -> Option<T> {
        self.table.remove(&pid)
    }

    /// What the end of a child means for the connection that it served.
    pub fn outcome(&self, end: End) -> Outcome {
        match end {
            End::Exit(outcome) => outcome,
            // The last resort at a timeout: see `crate::sys::alarm`.
            End::Signal(Signal::SIGALRM) => Outcome::TimedOut,
            End::Signal(Signal::SIGKILL) if self.killed => Outcome::Disconnected,
            End::Signal(_) => Outcome::Crashed,
        }
    }

    /// Asks all children to finish (SIGTERM).
    pub fn finish(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Kills all children.
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
