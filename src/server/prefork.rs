//! A fixed pool of processes, each of which accepts connections and serves one at a time.
//!
//! No process is forked while clients wait, and the pool's size limits how many are served at once; the others wait in
//! the backlog. The parent replaces members that die, and owns the state: a member that reports waits until the parent
//! has applied the report before it replies, since another member may accept the very next connection.
//!
//! The isolation is weaker than with a process per connection: a member serves one stranger after the other, and the
//! parent has only its word for who they were.

mod member;
mod signed;

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::Pid;

use super::accept::{Door, PAUSE};
use super::children::{Children, End};
use super::guests::{Guests, Place};
use super::ledger::Ledger;
use super::limits::Limits;
use super::orders;
use super::reports::{Channel, ReportOf};
use crate::service::{Apart, Outcome, Service};
use crate::sys::fork::{self, Kept};
use crate::sys::shared::Shared;
use crate::sys::signals::Signals;
use signed::Signed;

/// A member that lived for less than this is replaced only after this time, since its successor would likely die as
/// soon.
const YOUNG: Duration = Duration::from_secs(1);

/// Serves connections in `limits.pool` processes until TERM or INT.
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
    let guests = Guests::new(limits.max_per_address)?;
    let pool = limits.pool.clamp(1, limits.max_connections);
    let reports = Channel::new(S::REPORTS)?;
    let mut server = Server {
        listeners,
        service,
        limits,
        ledger,
        kept: kept(service, &reports, listeners),
        reports: &reports,
        guests: &guests,
        seats: Shared::new(pool)?,
        free: (0..pool).collect(),
        members: Children::default(),
        rest_until: None,
    };
    let door = Door::open(listeners, signals, server.reception())?;
    let door = server.run(door, signals)?;
    server.stop(door)
}

/// What members need beside what is their own.
fn kept<S: Service>(
    service: &S,
    reports: &Channel<Signed<ReportOf<S>>>,
    listeners: &[TcpListener],
) -> Kept {
    let of_all = listeners.iter().map(AsRawFd::as_raw_fd);
    let writing = reports.writing().map(|fd| fd.as_raw_fd());
    Kept::new(
        service
            .descriptors()
            .into_iter()
            .chain(of_all)
            .chain(writing),
    )
}

struct Server<'a, S: Service> {
    listeners: &'a [TcpListener],
    service: &'a S,
    limits: &'a Limits,
    ledger: &'a Ledger,
    reports: &'a Channel<Signed<ReportOf<S>>>,
    /// What members need beside what is their own.
    kept: Kept,
    guests: &'a Guests,
    /// The cell in which the client that a member serves is counted, or 0: the member may die before it can give that
    /// back.
    seats: Shared<AtomicU64>,
    /// Free seats.
    free: Vec<usize>,
    members: Children<Member>,
    /// When the next member may be started.
    rest_until: Option<Instant>,
}

/// A process of the pool.
struct Member {
    started: Instant,
    seat: usize,
    /// Tells the member that its report was applied.
    applied: EventFd,
}

impl<S: Service> Server<'_, S> {
    fn run<'d>(&mut self, mut door: Door<'d>, signals: &Signals) -> io::Result<Door<'d>> {
        while !door.is_stopping() {
            let rest = self.fill();
            let timeout = self.service.tick(SystemTime::now(), Apart::InChild);
            // The members accept, not the parent.
            let ready = door.wait(false, self.reports.reading(), timeout.min(rest))?;
            self.apply_reports()?;
            if ready.signal {
                self.reap()?;
                self.heed(signals);
            }
        }
        Ok(door)
    }

    /// Handles signals other than those to stop. Members see the state as of their fork: where it has changed they
    /// finish their connections, and are replaced.
    fn heed(&mut self, signals: &Signals) {
        let helpers = format_args!("children: {}", self.members.len());
        if orders::heed(signals, self.service, self.ledger, helpers) {
            self.kept = kept(self.service, self.reports, self.listeners);
            self.members.finish();
        }
    }

    /// Starts missing members; returns when to try again.
    fn fill(&mut self) -> Duration {
        const NEVER: Duration = Duration::from_secs(3600);
        if let Some(until) = self.rest_until.take_if(|until| *until > Instant::now()) {
            self.rest_until = Some(until);
            return until.saturating_duration_since(Instant::now());
        }
        while let Some(seat) = self.free.pop() {
            if let Err(error) = self.start_member(seat) {
                self.free.push(seat);
                let line = format_args!("cannot fork for the pool: {error}; newcomers wait");
                self.ledger.grumble(line);
                self.rest_until = Some(Instant::now() + PAUSE);
                return PAUSE;
            }
        }
        NEVER
    }

    fn start_member(&mut self, seat: usize) -> io::Result<()> {
        let applied = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let pid = fork::spawn_server(&self.kept, applied.as_fd(), || {
            match self.member(&self.seats[seat], &applied) {
                Ok(()) => Outcome::Done.exit_status(),
                Err(error) => {
                    log::warn!("cannot accept connections: {error}");
                    Outcome::Disconnected.exit_status()
                }
            }
        })?;
        log::debug!("start pid {pid} of the pool");
        let member = Member {
            started: Instant::now(),
            seat,
            applied,
        };
        self.members.insert(pid, member);
        Ok(())
    }

    fn apply_reports(&mut self) -> io::Result<()> {
        while let Some((pid, Signed { remote, report })) = self.reports.receive()? {
            match self.members.get_mut(pid) {
                Some(member) => {
                    self.service.apply(remote, report, SystemTime::now());
                    member.applied.write(1)?;
                }
                None => log::warn!("a report from pid {pid}, which has none to make, was ignored"),
            }
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Some((pid, end)) = self.members.reap()? {
            // It has ended, so whatever it reported is in the pipe by now.
            self.apply_reports()?;
            match self.members.remove(pid) {
                Some(member) => self.member_ended(pid, &member, end),
                None => _ = self.service.child_ended(pid, end.is_well()),
            }
        }
        Ok(())
    }

    fn member_ended(&mut self, pid: Pid, member: &Member, end: End) {
        self.free.push(member.seat);
        let place = self.seats[member.seat].swap(0, Ordering::Relaxed);
        if let Some(place) = Place::from_number(place) {
            self.guests.leave(place);
            self.ledger.ended(self.members.outcome(end));
        }
        if end == End::Exit(Outcome::Done) {
            log::debug!("end pid {pid} of the pool: {end}");
            return;
        }
        log::warn!("end pid {pid} of the pool: {end}");
        if member.started.elapsed() < YOUNG {
            self.rest_until = Some(Instant::now() + YOUNG);
        }
    }

    /// Stops listening, asks the members to finish, and kills those that have not by the end of the grace period.
    fn stop(&mut self, door: Door<'_>) -> io::Result<()> {
        let mut grace = door.close(self.limits);
        self.members.finish();
        while !self.members.is_empty() {
            if grace.is_over() {
                self.members.kill();
            }
            grace.wait(self.reports.reading())?;
            self.apply_reports()?;
            self.reap()?;
        }
        self.apply_reports()
    }
}
