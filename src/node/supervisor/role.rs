//! The state of a process that the supervisor keeps running.

use std::io;
use std::time::Instant;

use nix::unistd::Pid;

use super::REST;

/// A process that is restarted when it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Not needed.
    None,
    /// It is started at this time.
    Due(Instant),
    Running(Pid),
}

impl Role {
    pub(super) fn pid(self) -> Option<Pid> {
        match self {
            Self::Running(pid) => Some(pid),
            Self::None | Self::Due(_) => None,
        }
    }

    pub(super) fn is_waiting(self) -> bool {
        matches!(self, Self::Due(_))
    }

    pub(super) fn is_due(self) -> bool {
        matches!(self, Self::Due(at) if at <= Instant::now())
    }

    pub(super) fn started(what: &str, pid: io::Result<Pid>) -> Self {
        match pid {
            Ok(pid) => Self::Running(pid),
            Err(error) => {
                log::warn!("cannot start {what}: {error}");
                Self::Due(Instant::now() + REST)
            }
        }
    }
}
