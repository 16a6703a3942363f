//! A process that is started again when it dies.

use std::io;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::logging::complain;
use crate::sys::child::{self, Ended};

/// How long after its death it is started again.
const REST: Duration = Duration::from_secs(1);

/// The process, or when there will be one.
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
    /// It is due now.
    pub fn new(task: String) -> Self {
        Self {
            task,
            state: State::Due(Instant::now()),
        }
    }

    /// Its number, where it runs.
    pub fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running(pid) => Some(pid),
            State::Due(_) => None,
        }
    }

    /// Starts it where it is due; says when it will be, where that is later.
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

    /// A process ended; answers whether it was this one, which will be started again.
    pub fn ended(&mut self, ended: Ended) -> bool {
        if self.pid() != Some(ended.pid) {
            return false;
        }
        let (task, how) = (&self.task, ended.how);
        log::warn!("the process that {task} ended: {how}; it is started again");
        self.state = State::Due(Instant::now() + REST);
        true
    }

    /// Ends it, by force; it is due then.
    pub fn end(&mut self) {
        if let Some(pid) = self.pid() {
            child::kill(pid);
        }
        self.state = State::Due(Instant::now());
    }
}

/// The earlier of two times that may not come.
pub fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// The exit status of a process that went well, or says why not.
pub fn status_of(went: anyhow::Result<()>) -> u8 {
    match went {
        Ok(()) => 0,
        Err(error) => {
            complain(&error);
            1
        }
    }
}
