//! A process for each connection, as CS:APP's `echoserverp`, with what a long-running server needs besides.
//!
//! The parent waits for four kinds of events: a connection (accept, fork, close its copy), a signal (SIGCHLD: reap;
//! SIGTERM, SIGINT: stop), a report from a child (apply it, if that child is entitled to it), and its own timers. It
//! never reads a byte that a stranger sent.

use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Instant, SystemTime};

use super::accept::Door;
use super::children::Children;
use super::connection::Connection;
use super::converse::{InChild, converse};
use super::guests::{Guests, Place};
use super::ledger::Ledger;
use super::limits::Limits;
use super::orders;
use super::reception::{Guest, Reception};
use super::reports::{Channel, ReportOf};
use super::tally::{Id, log_accept, log_end};
use crate::faults::{self, Witness};
use crate::service::{Apart, Reports, Service};
use crate::sys::alarm;
use crate::sys::fork::{self, Kept};
use crate::sys::memory;
use crate::sys::signals::Signals;

/// Serves connections, a child for each, until TERM or INT.
///
/// # Errors
/// Where the loop itself cannot go on.
#[inline(never)]
pub fn serve<S: Service>(
    listeners: &[TcpListener],
    service: &S,
    limits: &Limits,
    ledger: &Ledger,
    signals: &Signals,
) -> io::Result<()> {
    fork::assert_single_threaded()?;
    let _witness = Witness::new("the loop");
    memory::make_small();
    let reports = Channel::new(S::REPORTS)?;
    let guests = Guests::of_one_process(limits.max_per_address)?;
    let mut server = Server {
        service,
        limits,
        ledger,
        kept: kept(service, &reports),
        reports: &reports,
        guests: &guests,
        children: Children::default(),
    };
    let reception = Reception::new(&guests, ledger, service.regret());
    let door = Door::open(listeners, signals, reception)?;
    let door = server.run(door, signals)?;
    server.stop(door)
}

/// What children need beside their connection.
fn kept<S: Service>(service: &S, reports: &Channel<ReportOf<S>>) -> Kept {
    let writing = reports.writing().map(|fd| fd.as_raw_fd());
    Kept::new(service.descriptors().into_iter().chain(writing))
}

struct Server<'a, S: Service> {
    service: &'a S,
    limits: &'a Limits,
    ledger: &'a Ledger,
    reports: &'a Channel<ReportOf<S>>,
    /// What children need beside their connection.
    kept: Kept,
    guests: &'a Guests,
    children: Children<Child>,
}

/// A child that serves a connection.
struct Child {
    remote: SocketAddr,
    place: Place,
    reported: bool,
}

impl<S: Service> Server<'_, S> {
    fn run<'d>(&mut self, mut door: Door<'d>, signals: &Signals) -> io::Result<Door<'d>> {
        while !door.is_stopping() {
            let timeout = self.service.tick(SystemTime::now(), Apart::InChild);
            let mut ready = door.wait(self.has_room(), self.reports.reading(), timeout)?;
            self.apply_reports()?;
            if ready.signal {
                self.reap()?;
                self.heed(signals);
            }
            while self.has_room()
                && let Some(guest) = door.accept(&mut ready)
            {
                // Whoever connected after a subscriber's reply must see the subscriber: its report is in the pipe
                // by now.
                self.apply_reports()?;
                if let Err(error) = self.serve_in_child(&guest) {
                    door.send_off(guest, format_args!("cannot fork: {error}; newcomers wait"));
                    break;
                }
                // Dropping the guest here closes the parent's copy of its socket.
            }
        }
        Ok(door)
    }

    /// At the limit the listeners are not polled, so that new connections wait in the backlog.
    fn has_room(&self) -> bool {
        self.children.len() < self.limits.max_connections
    }

    fn serve_in_child(&mut self, guest: &Guest) -> io::Result<()> {
        let now = (SystemTime::now(), Instant::now());
        let pid = fork::spawn_server(&self.kept, guest.stream.as_fd(), || self.child(guest, now))?;
        faults::record_late(pid);
        log_accept(Id::Process(pid), guest.remote);
        self.ledger.accepted();
        let child = Child {
            remote: guest.remote,
            place: guest.place,
            reported: false,
        };
        self.children.insert(pid, child);
        Ok(())
    }

    /// All that a child does. It is not inlined: the child's part of the stack should not lie between the parts that
    /// its parent uses.
    #[inline(never)]
    fn child(&self, guest: &Guest, (now, begun): (SystemTime, Instant)) -> u8 {
        alarm::end_after(self.limits.last_resort());
        let session = self.service.open(guest.remote, now);
        // The process ends with it: nothing has to be dropped.
        let mut connection = ManuallyDrop::new(Connection::new(
            &guest.stream,
            session,
            self.limits,
            self.ledger,
            begun,
        ));
        let report = |report| self.reports.send(&report);
        converse(&mut *connection, &InChild::default(), report).exit_status()
    }

    /// Applies the children's reports, if they are entitled to make them: live children only, each within its quota.
    fn apply_reports(&mut self) -> io::Result<()> {
        while let Some((pid, report)) = self.reports.receive()? {
            match self.children.get_mut(pid) {
                Some(child) if S::REPORTS == Reports::Often || !child.reported => {
                    child.reported = true;
                    self.service.apply(child.remote, report, SystemTime::now());
                }
                _ => log::warn!("a report from pid {pid}, which has none to make, was ignored"),
            }
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Some((pid, end)) = self.children.reap()? {
            // It has ended, so whatever it reported is in the pipe by now.
            self.apply_reports()?;
            let Some(child) = self.children.remove(pid) else {
                self.service.child_ended(pid, end.is_well());
                continue;
            };
            let outcome = self.children.outcome(end);
            log_end(Id::Process(pid), child.remote, outcome, end);
            self.ledger.ended(outcome);
            self.guests.leave(child.place);
        }
        Ok(())
    }

    /// Handles signals other than those to stop; children forked from now on see what has changed.
    fn heed(&mut self, signals: &Signals) {
        let helpers = format_args!("children: {}", self.children.len());
        if orders::heed(signals, self.service, self.ledger, helpers) {
            self.kept = kept(self.service, self.reports);
        }
    }

    /// Stops listening, asks the children to finish, and kills those that have not by the end of the grace period.
    fn stop(&mut self, door: Door<'_>) -> io::Result<()> {
        let mut grace = door.close(self.limits);
        self.children.finish();
        while !self.children.is_empty() {
            if grace.is_over() {
                self.children.kill();
            }
            grace.wait(self.reports.reading())?;
            self.apply_reports()?;
            self.reap()?;
        }
        self.apply_reports()
    }
}
