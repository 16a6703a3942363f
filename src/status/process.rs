//! A process that is restarted when it dies.

use std::io;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::sys::child::{self, Ended};

/// The delay before it is restarted.
const REST: Duration = Duration::from_secs(1);

/// The process, or when it is started.
#[derive(Debug)]
pub struct Process {
    /// What it does, for the log.
    task: String,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Due(Instant),
    Running(Pid),
}

impl Process {
    /// A process that is due now.
    pub fn new(task: String) -> Self {
        Self {
            task,
            state: State::Due(Instant::now()),
        }
    }

    /// Its pid, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running(pid) => Some(pid),
            State::Due(_) => None,
        }
    }

    /// Starts it if it is due; returns when it will be, if that is later.
    pub fn start(&mut self, spawn: impl FnOnce() -> io::Result<Pid>) -> Option<Instant> {
        let State::Due(at) = self.state else {
            return None;
        };
        let now = Instant::now();
        if at > now {
            return Some(at);
        }
        match spawn() {
            Ok(pid) => {
                self.state = State::Running(pid);
                None
            }
            Err(error) => {
                log::warn!("cannot start the process that {}: {error}", self.task);
                self.state = State::Due(now + REST);
                Some(now + REST)
            }
        }
    }

    /// A child ended: returns whether it was this one, which is then restarted.
    pub fn ended(&mut self, ended: Ended) -> bool {
        if self.pid() != Some(ended.pid) {
            return false;
        }
        let (task, how) = (&self.task, ended.how);
        log::warn!("the process that {task} ended: {how}; it is started again");
        self.state = State::Due(Instant::now() + REST);
        true
    }

    /// Kills it; it is due then.
    pub fn end(&mut self) {
        if let Some(pid) = self.pid() {
            child::kill(pid);
        }
        self.state = State::Due(Instant::now());
    }
}

/// The earlier of two optional times.
pub fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
