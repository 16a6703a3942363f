//! A fixed pool of processes, each of which accepts on its own and serves one connection at a time.
//!
//! No process is made while clients wait, and no more than the pool are served at once; the others wait in the
//! backlog. The parent replaces members that die, and owns the state: a member that reports waits until the parent has
//! applied it before it replies, for another member may accept the very next connection.
//!
//! What is weaker than with a process per connection: a member serves one stranger after the other, and the parent has
//! only its word for who they were.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::accept::{Accepted, Door, PAUSE, accept};
use super::children::{Children, End};
use super::connection::{Connection, InChild, converse};
use super::limits::Limits;
use super::reports::{Channel, ReportOf};
use super::tally::{Id, Tally, log_accept, log_end};
use crate::service::{Apart, Outcome, Service};
use crate::sys::pipe::Record;
use crate::sys::poll::wait_readable;
use crate::sys::shared::Shared;
use crate::sys::signals::{self, Signals};
use crate::sys::{
    epoll,
    fork::{self, Kept},
};

/// A member that lived for less than this is replaced only after as long: it would die again.
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
    signals: &Signals,
) -> io::Result<Tally> {
    fork::assert_single_threaded()?;
    let reports = Channel::new(S::REPORTS)?;
    let kept = service.descriptors().into_iter().chain(reports.writing());
    let mut server = Server {
        listeners,
        service,
        limits,
        kept: Kept::new(kept.chain(listeners.iter().map(AsFd::as_fd))),
        reports: &reports,
        counts: Shared::new(1 + Outcome::ALL.len())?,
        members: Children::default(),
        rest_until: None,
    };
    let door = Door::open(listeners, signals)?;
    let door = server.run(door)?;
    server.stop(door)?;
    Ok(server.tally())
}

struct Server<'a, S: Service> {
    listeners: &'a [TcpListener],
    service: &'a S,
    limits: &'a Limits,
    reports: &'a Channel<Signed<ReportOf<S>>>,
    /// What members need beside what is their own.
    kept: Kept<'a>,
    /// Connections accepted, and ended by outcome: counted by the members.
    counts: Shared<AtomicU64>,
    members: Children<Member>,
    /// No member is replaced before this.
    rest_until: Option<Instant>,
}

/// A process of the pool.
struct Member {
    started: Instant,
    /// Tells it that its report was applied.
    applied: EventFd,
}

/// A report, and on whose behalf it is made.
struct Signed<R> {
    remote: SocketAddr,
    report: R,
}

impl<R: Record> Record for Signed<R> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let ip = match self.remote.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        bytes.extend_from_slice(&ip.octets());
        bytes.extend_from_slice(&self.remote.port().to_ne_bytes());
        self.report.encode(bytes);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (ip, bytes) = bytes.split_first_chunk::<16>()?;
        let (port, report) = bytes.split_first_chunk()?;
        let ip = IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical();
        Some(Self {
            remote: SocketAddr::new(ip, u16::from_ne_bytes(*port)),
            report: R::decode(report)?,
        })
    }
}

// The parent.
impl<S: Service> Server<'_, S> {
    fn run<'d>(&mut self, mut door: Door<'d>) -> io::Result<Door<'d>> {
        while !door.is_stopping() {
            let rest = self.fill();
            let timeout = self.service.tick(SystemTime::now(), Apart::InChild);
            // The members accept, not the parent.
            let ready = door.wait(false, self.reports.reading(), timeout.min(rest))?;
            self.apply_reports()?;
            if ready.signal {
                self.reap()?;
            }
        }
        Ok(door)
    }

    /// Starts the members that are missing; says when to try again.
    fn fill(&mut self) -> Duration {
        const NEVER: Duration = Duration::from_secs(3600);
        if let Some(until) = self.rest_until.take_if(|until| *until > Instant::now()) {
            self.rest_until = Some(until);
            return until.saturating_duration_since(Instant::now());
        }
        let pool = self.limits.pool.clamp(1, self.limits.max_connections);
        while self.members.len() < pool {
            if let Err(error) = self.start_member() {
                log::warn!("cannot fork for the pool: {error}");
                self.rest_until = Some(Instant::now() + PAUSE);
                return PAUSE;
            }
        }
        NEVER
    }

    fn start_member(&mut self) -> io::Result<()> {
        let applied = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let pid = fork::spawn_server(&self.kept, applied.as_fd(), || {
            match self.member(&applied) {
                Ok(()) => Outcome::Done.exit_status(),
                Err(error) => {
                    log::warn!("cannot accept connections: {error}");
                    Outcome::Disconnected.exit_status()
                }
            }
        })?;
        log::debug!("start pid {pid} of the pool");
        let started = Instant::now();
        self.members.insert(pid, Member { started, applied });
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
                None => _ = self.service.child_ended(pid),
            }
        }
        Ok(())
    }

    fn member_ended(&mut self, pid: Pid, member: &Member, end: End) {
        if end == End::Exit(Outcome::Done) {
            log::debug!("end pid {pid} of the pool: {end}");
            return;
        }
        log::warn!("end pid {pid} of the pool: {end}");
        if member.started.elapsed() < YOUNG {
            self.rest_until = Some(Instant::now() + YOUNG);
        }
    }

    /// Stops listening, asks the members to finish, and ends those that do not within the grace period.
    fn stop(&mut self, door: Door<'_>) -> io::Result<()> {
        let mut grace = door.close(self.limits.grace);
        self.members.signal(Signal::SIGTERM);
        while !self.members.is_empty() {
            if grace.is_over() {
                self.members.signal(Signal::SIGKILL);
            }
            grace.wait(self.reports.reading())?;
            self.reap()?;
        }
        self.apply_reports()
    }

    fn tally(&self) -> Tally {
        let count = |index: usize| self.counts[index].load(Ordering::Relaxed);
        let ended = Outcome::ALL.into_iter().zip(1..);
        Tally::of(
            count(0),
            ended.map(|(outcome, index)| (outcome, count(index))),
        )
    }
}

// A member.
impl<S: Service> Server<'_, S> {
    /// The whole life of a member: accept, serve, accept, until it is asked to end.
    fn member(&self, applied: &EventFd) -> io::Result<()> {
        fork::reseed();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (index, listener) in (0..).zip(self.listeners) {
            // Of all members that wait, a connection wakes one.
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
            epoll.add(listener, EpollEvent::new(flags, index))?;
        }
        while !(signals::asked_to_finish() || signals::is_term_pending()) {
            let Some(index) = epoll::wait_with_mask(&epoll, signals::all_but_term())? else {
                continue;
            };
            match accept(&self.listeners[index as usize]) {
                Accepted::Connection(stream, remote) => self.converse(&stream, remote, applied),
                Accepted::Nobody | Accepted::Gone => {}
                Accepted::NoRoom => _ = wait_readable(&[], Some(PAUSE))?,
            }
        }
        Ok(())
    }

    fn converse(&self, stream: &TcpStream, remote: SocketAddr, applied: &EventFd) {
        let id = Id::Process(Pid::this());
        log_accept(id, remote);
        self.count(0);
        let session = self.service.open(remote, SystemTime::now());
        let mut connection = Connection::new(stream, session, self.limits);
        let outcome = converse(&mut connection, &InChild::default(), |report| {
            self.reports.send(Signed { remote, report })?;
            applied.read()?;
            Ok(())
        });
        log_end(id, remote, outcome, outcome.describe());
        let index = Outcome::ALL.iter().position(|other| *other == outcome);
        self.count(1 + index.unwrap_or_default());
    }

    fn count(&self, index: usize) {
        self.counts[index].fetch_add(1, Ordering::Relaxed);
    }
}
