//! The channel through which a server's processes report to the owner of the state.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::unistd::Pid;

use crate::service::{Reports, Service, Session};
use crate::sys::letters::{self, Received, Receiver, Sender, letters};
use crate::sys::record::Record;

/// What a service's sessions report.
pub type ReportOf<S> = <<S as Service>::Session as Session>::Report;

/// Both ends. The parent keeps the sending end, too: without it the socket would poll as hung up whenever no child is
/// left. A service that never reports has no channel.
pub struct Channel<R> {
    ends: Option<(Sender<R>, Receiver<R>)>,
}

impl<R: Record> Channel<R> {
    /// The channel that a service needs.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new(reports: Reports) -> io::Result<Self> {
        match reports {
            Reports::Never => Ok(Self { ends: None }),
            Reports::Once | Reports::Often => Ok(Self {
                ends: Some(letters()?),
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
    pub fn send(&self, report: &R) -> io::Result<()> {
        let (sender, _) = self.ends.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        sender.send(report)
    }

    /// Receives one report, if there is one, with the pid of its sender, for which the kernel vouches. Malformed
    /// reports are logged.
    ///
    /// # Errors
    /// As recvmsg(2).
    pub fn receive(&self) -> io::Result<Option<(Pid, R)>> {
        let Some((sender, receiver)) = &self.ends else {
            return Ok(None);
        };
        loop {
            match receiver.receive()? {
                Received::Record(pid, report) => return Ok(Some((pid, report))),
                Received::Garbage(pid) => {
                    log::warn!("a report of pid {pid} that is none was ignored");
                }
                Received::Empty => return Ok(None),
                // This process has a sending end itself.
                Received::Closed => {
                    log::warn!("a child has shut down the socket for reports: here is another");
                    letters::renew(sender, receiver)?;
                }
            }
        }
    }
}
