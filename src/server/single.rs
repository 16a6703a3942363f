//! One connection that another program has accepted: the process model for `--inetd`.
//!
//! As always a confined child serves the connection, and the parent reads nothing that a stranger sent. What the child
//! reports is applied before it may reply, since the next connection is served by another process, which knows only
//! what was saved.

use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Instant, SystemTime};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::children::{Children, End};
use super::connection::Connection;
use super::converse::{InChild, converse};
use super::ledger::Ledger;
use super::limits::Limits;
use super::reports::{Channel, ReportOf};
use super::tally::{Id, log_accept, log_end};
use crate::service::{Outcome, Service};
use crate::sys::alarm;
use crate::sys::child;
use crate::sys::fork::{self, Kept};
use crate::sys::poll::wait_readable;
use crate::sys::signals::Signals;

/// A connection, and its peer.
#[derive(Debug)]
pub struct Accepted {
    /// A non-blocking stream socket of any kind.
    pub socket: OwnedFd,
    /// The peer's address.
    pub remote: SocketAddr,
}

/// Serves a connection in a child, which runs `confine` first. The parent passes each report to `apply`; where that
/// fails, the connection is ended.
///
/// # Errors
/// Those of `apply`, and where the child cannot be forked.
pub fn serve<S: Service>(
    accepted: Accepted,
    service: &S,
    limits: &Limits,
    signals: &Signals,
    confine: impl FnOnce() -> anyhow::Result<()>,
    mut apply: impl FnMut(ReportOf<S>) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let reports = Channel::<ReportOf<S>>::new(S::REPORTS)?;
    let applied = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
    let pid = start(&accepted, service, limits, &reports, &applied, confine)?;
    let Accepted { socket, remote } = accepted;
    // The child's is the last: where it ends, so does the connection.
    drop(socket);
    log_accept(Id::Process(pid), remote);
    let mut children = Children::default();
    children.insert(pid, ());
    let mut failed = Ok(());
    let end = loop {
        if let Some(end) = reap(&children, pid)? {
            break end;
        }
        if wait_readable(&[Some(signals.as_fd()), reports.reading()], None)?[0] {
            signals.clear();
            if signals
                .take_any(&[Signal::SIGTERM, Signal::SIGINT])
                .is_some()
            {
                children.finish();
            }
        }
        while let Some((from, report)) = reports.receive()? {
            if from != pid || failed.is_err() {
                continue;
            }
            match apply(report) {
                Ok(()) => _ = applied.write(1)?,
                Err(error) => {
                    failed = Err(error);
                    // No reply is better than one that is not true.
                    child::signal(pid, Signal::SIGKILL);
                }
            }
        }
    };
    failed?;
    let outcome = children.outcome(end);
    log_end(Id::Process(pid), remote, outcome, end);
    Ok(outcome)
}

/// Starts the child.
fn start<S: Service>(
    accepted: &Accepted,
    service: &S,
    limits: &Limits,
    reports: &Channel<ReportOf<S>>,
    applied: &EventFd,
    confine: impl FnOnce() -> anyhow::Result<()>,
) -> io::Result<Pid> {
    let ours = [reports.writing(), Some(applied.as_fd())];
    let ours = ours.into_iter().flatten().map(|fd| fd.as_raw_fd());
    let kept = Kept::new(service.descriptors().into_iter().chain(ours));
    let ledger = Ledger::new()?;
    fork::spawn_server(&kept, accepted.socket.as_fd(), || {
        if let Err(error) = confine() {
            crate::logging::complain(&error);
            return Outcome::Disconnected.exit_status();
        }
        alarm::end_after(limits.last_resort());
        let session = service.open(accepted.remote, SystemTime::now());
        let (socket, now) = (&accepted.socket, Instant::now());
        let connection = Connection::new(socket, session, limits, &ledger, now);
        // The process ends with it: nothing has to be dropped.
        let mut connection = ManuallyDrop::new(connection);
        let report = |report| {
            reports.send(&report)?;
            applied.read()?;
            Ok(())
        };
        converse(&mut *connection, &InChild::default(), report).exit_status()
    })
}

/// How the child ended, if it has. Other children are reaped, and ignored.
fn reap(children: &Children<()>, pid: Pid) -> io::Result<Option<End>> {
    while let Some((ended, end)) = children.reap()? {
        if ended == pid {
            return Ok(Some(end));
        }
    }
    Ok(None)
}
