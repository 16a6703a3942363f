//! One thread for all connections: epoll(7), non-blocking sockets, a session for each descriptor.
//!
//! Every connection makes as much progress as it can without blocking ([`Connection::advance`]) and returns what it is
//! waiting for; the loop waits for all of them at once. Nothing may block or take long here, since it would delay all
//! other connections. And since there is only one flow of control, a report is applied where it is made.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;

use super::accept::{Accepted, Grace, PAUSE, accept, log_no_room, stop_listening};
use super::connection::{Connection, Want};
use super::converse::guarded;
use super::guests::{Guests, Place};
use super::ledger::Ledger;
use super::limits::Limits;
use super::orders;
use super::reception::{Guest, Reception};
use super::tally::{Id, log_accept, log_end};
use crate::service::{Apart, Outcome, Service};
use crate::sys::signals::Signals;

/// Events fetched by one epoll_wait(2).
const BATCH: usize = 256;
/// The least interval between two looks at the deadlines: each goes through all connections.
const LOOK: Duration = Duration::from_millis(50);

/// The event's data: a connection's descriptor, or from here on the index of a listener, or the signals.
const LISTENER: u64 = 1 << 32;
const SIGNAL: u64 = 1 << 33;

/// Serves all connections in this thread until TERM or INT.
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
    let guests = Guests::new(limits.max_per_address)?;
    let mut server = Server {
        listeners,
        service,
        limits,
        ledger,
        signals,
        guests: &guests,
        reception: Reception::new(&guests, ledger, service.regret()),
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        clients: Vec::new(),
        live: 0,
        open: false,
        paused_until: None,
        look: Instant::now() + LOOK,
        grace: None,
    };
    let of_signals = EpollEvent::new(EpollFlags::EPOLLIN, SIGNAL);
    server.epoll.add(signals, of_signals)?;
    while server.grace.is_none() || server.live > 0 {
        server.turn()?;
    }
    Ok(())
}

struct Server<'a, S: Service> {
    listeners: &'a [TcpListener],
    service: &'a S,
    limits: &'a Limits,
    ledger: &'a Ledger,
    signals: &'a Signals,
    guests: &'a Guests,
    reception: Reception<'a>,
    epoll: Epoll,
    /// Indexed by descriptor; the kernel always hands out the lowest free number.
    clients: Vec<Option<Client<'a, S>>>,
    /// The number of connections.
    live: usize,
    /// Whether the listeners are registered with epoll.
    open: bool,
    paused_until: Option<Instant>,
    /// When the deadlines are checked next.
    look: Instant,
    /// Set once the server was asked to stop.
    grace: Option<Grace<'a>>,
}

struct Client<'a, S: Service> {
    connection: Connection<'a, TcpStream, S::Session>,
    remote: SocketAddr,
    place: Place,
    id: Id,
    /// The events that are registered with epoll.
    interest: EpollFlags,
    deadline: Instant,
}

impl<S: Service> Server<'_, S> {
    /// Waits once, and handles what is ready.
    fn turn(&mut self) -> io::Result<()> {
        self.open_or_close_the_door()?;
        let mut events = [EpollEvent::empty(); BATCH];
        let timeout = self.timeout();
        let ready = match self.epoll.wait(&mut events, timeout) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..ready] {
            match event.data() {
                SIGNAL => self.look_at_signals()?,
                token if token >= LISTENER => self.accept((token - LISTENER) as usize),
                // An event for a connection that ended in this batch may reach its successor, which reads in vain.
                fd if self.has_hung_up(fd as usize, event) => {
                    self.end(fd as usize, Outcome::Disconnected);
                }
                fd => self.advance(fd as usize)?,
            }
        }
        self.look_at_deadlines()?;
        Ok(())
    }

    /// Whether a client that waits for the time only has hung up: level-triggered epoll would report that again and
    /// again.
    fn has_hung_up(&self, fd: usize, event: &EpollEvent) -> bool {
        let gone = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let client = self.clients.get(fd).and_then(Option::as_ref);
        event.events().intersects(gone) && client.is_some_and(|client| client.interest.is_empty())
    }

    /// At the connection limit, during a pause and during shutdown the listeners are not polled.
    fn open_or_close_the_door(&mut self) -> io::Result<()> {
        if self
            .paused_until
            .is_some_and(|until| until <= Instant::now())
        {
            self.paused_until = None;
        }
        let room = self.live < self.limits.max_connections;
        let open = room && self.paused_until.is_none() && self.grace.is_none();
        if open != self.open {
            self.open = open;
            for (token, listener) in (LISTENER..).zip(self.listeners) {
                if open {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
                    self.epoll.add(listener, event)?;
                } else {
                    self.epoll.delete(listener)?;
                }
            }
        }
        Ok(())
    }

    fn timeout(&mut self) -> EpollTimeout {
        let now = Instant::now();
        let mut timeout = self.service.tick(SystemTime::now(), Apart::InThread);
        timeout = timeout.min(self.reception.tick());
        let moments = [self.paused_until, (self.live > 0).then_some(self.look)];
        for moment in moments.into_iter().flatten() {
            timeout = timeout.min(moment.saturating_duration_since(now));
        }
        timeout = timeout.min(self.grace.as_ref().map_or(timeout, Grace::left));
        // Rounded up: waking too early would spin.
        let milliseconds = timeout.as_micros().div_ceil(1000);
        EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::MAX)
    }

    fn accept(&mut self, listener: usize) {
        if !self.open || self.live >= self.limits.max_connections {
            return;
        }
        match accept(&self.listeners[listener]) {
            Accepted::Connection(stream, remote) => {
                if let Some(guest) = self.reception.let_in(stream, remote) {
                    self.take_in(guest);
                }
            }
            Accepted::Nobody | Accepted::Gone => {}
            Accepted::NoRoom(error) => {
                log_no_room(&error, self.ledger);
                self.paused_until = Some(Instant::now() + PAUSE);
            }
        }
    }

    fn take_in(&mut self, guest: Guest) {
        let fd = guest.stream.as_raw_fd() as usize;
        let interest = EpollFlags::EPOLLIN;
        let event = EpollEvent::new(interest, fd as u64);
        if let Err(error) = self.epoll.add(&guest.stream, event) {
            // The user's share of watches is used up, or memory is.
            let why = format_args!("cannot wait for it: {error}; newcomers wait");
            self.reception.send_off(guest, why);
            self.paused_until = Some(Instant::now() + PAUSE);
            return;
        }
        let Guest {
            stream,
            remote,
            place,
        } = guest;
        let id = Id::Number(self.ledger.accepted());
        log_accept(id, remote);
        let session = self.service.open(remote, SystemTime::now());
        let now = Instant::now();
        let mut connection = Connection::new(stream, session, self.limits, self.ledger, now);
        let deadline = connection.deadline();
        if self.clients.len() <= fd {
            self.clients.resize_with(fd + 1, || None);
        }
        self.clients[fd] = Some(Client {
            connection,
            remote,
            place,
            id,
            interest,
            deadline,
        });
        self.live += 1;
        self.look = self.look.min(deadline);
    }

    /// Lets a connection make progress.
    fn advance(&mut self, fd: usize) -> io::Result<()> {
        let Some(Some(client)) = self.clients.get_mut(fd) else {
            return Ok(());
        };
        let mut want = Want::End(Outcome::Crashed);
        let crashed = guarded(|| {
            want = client.connection.advance(&mut |report| {
                self.service.apply(client.remote, report, SystemTime::now());
                Ok(())
            });
            Outcome::Done
        });
        if crashed == Outcome::Crashed {
            want = Want::End(Outcome::Crashed);
        }
        let interest = match want {
            Want::End(outcome) => {
                self.end(fd, outcome);
                return Ok(());
            }
            _ if self.grace.is_some() && client.connection.may_be_closed() => {
                self.end(fd, Outcome::Done);
                return Ok(());
            }
            Want::Read => EpollFlags::EPOLLIN,
            Want::Write => EpollFlags::EPOLLOUT,
            Want::Pause => EpollFlags::empty(),
        };
        let deadline = client.connection.deadline();
        client.deadline = deadline;
        self.look = self.look.min(deadline);
        if interest != client.interest {
            client.interest = interest;
            let mut event = EpollEvent::new(interest, fd as u64);
            self.epoll.modify(client.connection.as_fd(), &mut event)?;
        }
        Ok(())
    }

    /// Closes a connection, which also removes it from epoll.
    fn end(&mut self, fd: usize, outcome: Outcome) {
        if let Some(mut client) = self.clients[fd].take() {
            client.connection.count_sent();
            log_end(client.id, client.remote, outcome, outcome.describe());
            self.ledger.ended(outcome);
            self.guests.leave(client.place);
            self.live -= 1;
        }
    }

    /// Ends the connections whose deadline has passed, and all that remain at the end of the grace period.
    fn look_at_deadlines(&mut self) -> io::Result<()> {
        let over = self.grace.as_mut().is_some_and(Grace::is_over);
        let now = Instant::now();
        if now < self.look && !over {
            return Ok(());
        }
        let mut next = now + Duration::from_secs(3600);
        for fd in 0..self.clients.len() {
            match &self.clients[fd] {
                None => {}
                Some(_) if over => self.end(fd, Outcome::Disconnected),
                // One that waits for nothing but the time goes on.
                Some(client) if client.deadline <= now && client.interest.is_empty() => {
                    self.advance(fd)?;
                    let client = self.clients[fd].as_ref();
                    next = client.map_or(next, |client| next.min(client.deadline));
                }
                Some(client) if client.deadline <= now => {
                    self.end(fd, client.connection.timed_out());
                }
                Some(client) => next = next.min(client.deadline),
            }
        }
        self.look = next.max(now + LOOK);
        Ok(())
    }

    /// Stops listening if asked to. Every connection makes what progress it can, and ends if it is idle then.
    fn look_at_signals(&mut self) -> io::Result<()> {
        self.signals.clear();
        let helpers = format_args!("children: none");
        orders::heed(self.signals, self.service, self.ledger, helpers);
        let asked = [Signal::SIGTERM, Signal::SIGINT];
        if self.grace.is_none() && self.signals.take_any(&asked).is_some() {
            stop_listening(self.listeners, self.limits);
            self.grace = Some(Grace::new(self.signals, self.limits.grace));
            for fd in 0..self.clients.len() {
                self.advance(fd)?;
            }
        }
        Ok(())
    }
}
