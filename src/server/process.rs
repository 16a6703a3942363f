//! A process for each connection: the model of the textbook's echoserverp, with what a long life needs.
//!
//! The parent waits for four things: a connection (accept, fork, close its copy), a signal (CHLD: reap; TERM, INT:
//! stop), a report of a child (apply it, if the child may say it), and its own clock. It never reads a byte that a
//! stranger sent.

use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::SystemTime;

use nix::sys::signal::Signal;

use super::accept::Door;
use super::children::Children;
use super::connection::{Connection, InChild, converse};
use super::limits::Limits;
use super::reports::{Channel, ReportOf};
use super::tally::{Id, Tally, log_accept, log_end};
use crate::service::{Apart, Reports, Service};
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
    signals: &Signals,
) -> io::Result<Tally> {
    fork::assert_single_threaded()?;
    memory::trim();
    let reports = Channel::new(S::REPORTS)?;
    let mut server = Server {
        service,
        limits,
        kept: Kept::new(service.descriptors().into_iter().chain(reports.writing())),
        reports: &reports,
        children: Children::default(),
        tally: Tally::default(),
    };
    let door = Door::open(listeners, signals)?;
    let door = server.run(door)?;
    server.stop(door)?;
    Ok(server.tally)
}

struct Server<'a, S: Service> {
    service: &'a S,
    limits: &'a Limits,
    reports: &'a Channel<ReportOf<S>>,
    /// What children need beside their connection.
    kept: Kept<'a>,
    children: Children<Child>,
    tally: Tally,
}

/// A child that serves a connection.
struct Child {
    remote: SocketAddr,
    reported: bool,
}

impl<S: Service> Server<'_, S> {
    fn run<'d>(&mut self, mut door: Door<'d>) -> io::Result<Door<'d>> {
        while !door.is_stopping() {
            let timeout = self.service.tick(SystemTime::now(), Apart::InChild);
            let mut ready = door.wait(self.has_room(), self.reports.reading(), timeout)?;
            self.apply_reports()?;
            if ready.signal {
                self.reap()?;
            }
            while self.has_room()
                && let Some((stream, remote)) = door.accept(&mut ready)
            {
                // Whoever connected after a subscriber's reply must see the subscriber: its report is in the pipe
                // by now.
                self.apply_reports()?;
                if let Err(error) = self.serve_in_child(&stream, remote) {
                    log::warn!("cannot fork for {remote}: {error}; newcomers wait");
                    door.pause();
                    break;
                }
                // Dropping the stream here closes the parent's copy, on every path.
            }
        }
        Ok(door)
    }

    /// At the limit the listeners are not polled, so that newcomers wait in the backlog.
    fn has_room(&self) -> bool {
        self.children.len() < self.limits.max_connections
    }

    fn serve_in_child(&mut self, stream: &TcpStream, remote: SocketAddr) -> io::Result<()> {
        let (own, now) = (stream.as_fd(), SystemTime::now());
        let pid = fork::spawn_server(&self.kept, own, || self.child(stream, remote, now))?;
        log_accept(Id::Process(pid), remote);
        self.tally.accepted();
        let reported = false;
        self.children.insert(pid, Child { remote, reported });
        Ok(())
    }

    /// The child's whole life.
    #[inline(always)]
    fn child(&self, stream: &TcpStream, remote: SocketAddr, now: SystemTime) -> u8 {
        let session = self.service.open(remote, now);
        // The process ends with it: nothing has to be dropped.
        let mut connection = ManuallyDrop::new(Connection::new(stream, session, self.limits));
        let report = |report| self.reports.send(report);
        converse(&mut *connection, &InChild::default(), report).exit_status()
    }

    /// Applies what children reported, where they may report it: a live child, and as often as it may.
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
                self.service.child_ended(pid);
                continue;
            };
            log_end(Id::Process(pid), child.remote, end.outcome(), end);
            self.tally.ended(end.outcome());
        }
        Ok(())
    }

    /// Stops listening, asks the children to finish, and ends those that do not within the grace period.
    fn stop(&mut self, door: Door<'_>) -> io::Result<()> {
        let mut grace = door.close(self.limits.grace);
        self.children.signal(Signal::SIGTERM);
        while !self.children.is_empty() {
            if grace.is_over() {
                self.children.signal(Signal::SIGKILL);
            }
            grace.wait(self.reports.reading())?;
            self.reap()?;
        }
        self.apply_reports()
    }
}
