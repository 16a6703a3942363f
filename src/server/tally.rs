//! Counts of connections by outcome, and the log lines about them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use nix::unistd::Pid;

use crate::logging;
use crate::service::Outcome;

/// A snapshot of the counts of connections.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    accepted: u64,
    turned_away: u64,
    sent: u64,
    ended: BTreeMap<Outcome, u64>,
}

impl Tally {
    /// Connections admitted and turned away, bytes sent, and connections by outcome.
    pub fn of(
        accepted: u64,
        turned_away: u64,
        sent: u64,
        ended: impl IntoIterator<Item = (Outcome, u64)>,
    ) -> Self {
        Self {
            accepted,
            turned_away,
            sent,
            ended: ended.into_iter().filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// Connections admitted.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Connections turned away.
    pub fn turned_away(&self) -> u64 {
        self.turned_away
    }

    /// Bytes that were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Connections that ended with this outcome.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.ended.get(&outcome).copied().unwrap_or_default()
    }

    /// Connections open now.
    pub fn live(&self) -> u64 {
        self.accepted.saturating_sub(self.ended.values().sum())
    }

    /// The lines of a status block.
    pub fn status(&self) -> Vec<String> {
        vec![
            format!(
                "connections: {} now, {} ever{}",
                self.live(),
                self.accepted,
                Ends(self)
            ),
            format!("bytes: {} sent", self.sent),
        ]
    }
}

/// How the connections of a tally ended.
struct Ends<'a>(&'a Tally);

impl fmt::Display for Ends<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (outcome, count)) in self.0.ended.iter().enumerate() {
            let begin = if index == 0 { ": " } else { ", " };
            write!(f, "{begin}{} {count}", outcome.describe())?;
        }
        match self.0.turned_away {
            0 => Ok(()),
            count => write!(f, "; {count} turned away"),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.accepted == 1 { "" } else { "s" };
        write!(f, "{} connection{plural}{}", self.accepted, Ends(self))
    }
}

/// Identifies a connection in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// The process that serves it.
    Process(Pid),
    /// Its number, where connections share a process.
    Number(u64),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "pid {pid}"),
            Self::Number(number) => write!(f, "connection {number}"),
        }
    }
}

/// Logs that a connection begins.
pub fn log_accept(id: Id, remote: SocketAddr) {
    logging::about(
        remote,
        log::Level::Debug,
        format_args!("accept {id} from {remote}"),
    );
}

/// Logs that a connection ended, and how; a crash at a level that operators see.
pub fn log_end(id: Id, remote: SocketAddr, outcome: Outcome, how: impl fmt::Display) {
    let level = match outcome {
        Outcome::Crashed => log::Level::Warn,
        _ => log::Level::Debug,
    };
    logging::about(remote, level, format_args!("end {id} of {remote}: {how}"));
}
