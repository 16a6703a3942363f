//! The pipe through which the processes of a server report to the owner of the state.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::unistd::Pid;

use crate::service::{Reports, Service, Session};
use crate::sys::pipe::{Received, Receiver, Record, Sender, packet_pipe};

/// What the sessions of a service report.
pub type ReportOf<S> = <<S as Service>::Session as Session>::Report;

/// A report, and who says it.
struct Envelope<R> {
    pid: i32,
    report: R,
}

impl<R: Record> Record for Envelope<R> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.pid.to_ne_bytes());
        self.report.encode(bytes);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (pid, report) = bytes.split_first_chunk()?;
        Some(Self {
            pid: i32::from_ne_bytes(*pid),
            report: R::decode(report)?,
        })
    }
}

/// Both ends, which the parent has: without a write end of its own the pipe would poll as hung up when no child is
/// left. A service that never reports has no pipe.
pub struct Channel<R> {
    ends: Option<Ends<Envelope<R>>>,
}

type Ends<R> = (Sender<R>, Receiver<R>);

impl<R: Record> Channel<R> {
    /// The channel that a service needs.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new(reports: Reports) -> io::Result<Self> {
        match reports {
            Reports::Never => Ok(Self { ends: None }),
            Reports::Once | Reports::Often => Ok(Self {
                ends: Some(packet_pipe()?),
            }),
        }
    }

    /// The descriptor that a child keeps.
    pub fn writing(&self) -> Option<BorrowedFd<'_>> {
        self.ends.as_ref().map(|(sender, _)| sender.as_fd())
    }

    /// The descriptor that a parent polls.
    pub fn reading(&self) -> Option<BorrowedFd<'_>> {
        self.ends.as_ref().map(|(_, receiver)| receiver.as_fd())
    }

    /// Reports from this process.
    ///
    /// # Errors
    /// Where the parent is gone.
    pub fn send(&self, report: R) -> io::Result<()> {
        let (sender, _) = self.ends.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let pid = std::process::id() as i32;
        sender.send(&Envelope { pid, report })
    }

    /// Takes one report, if there is one. What is none is logged.
    ///
    /// # Errors
    /// As read(2).
    pub fn receive(&self) -> io::Result<Option<(Pid, R)>> {
        let Some((_, receiver)) = &self.ends else {
            return Ok(None);
        };
        loop {
            match receiver.receive()? {
                Received::Record(Envelope { pid, report }) => {
                    return Ok(Some((Pid::from_raw(pid), report)));
                }
                Received::Garbage => log::warn!("a report that is none was ignored"),
                Received::Empty | Received::Closed => return Ok(None),
            }
        }
    }
}
