//! The door: listening sockets, admission of new connections, and shutdown of the listeners. All models share it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};

use super::connection::canonical;
use super::ledger::Ledger;
use super::limits::Limits;
use super::reception::{Guest, Reception};
use crate::sys::poll::{FEW, wait_few, wait_readable};
use crate::sys::signals::Signals;
use crate::sys::socket;

/// How long no connection is accepted after the system was out of descriptors, processes or threads. The listener stays
/// readable meanwhile, so polling it would spin.
pub const PAUSE: Duration = Duration::from_millis(100);
/// TCP keepalive: idle seconds before the first probe, and number and interval of the probes. A peer that has vanished
/// is detected within two minutes, however long the server's own timeouts are.
const QUIET: u32 = 60;
const PROBE_EVERY: u32 = 15;
const PROBES: u32 = 4;
/// Connections accepted from one listener in a row before the loop turns to its other duties.
const BURST: usize = 64;

/// Prepares listeners for an event loop. They become non-blocking, since a client may give up between poll and accept.
/// The other options are set for the sake of accepted sockets, which inherit them at no cost: Nagle's algorithm is off,
/// and vanished peers are detected.
///
/// # Errors
/// Where a socket is broken.
pub fn prepare(listeners: &[TcpListener], limits: &Limits) -> io::Result<()> {
    for listener in listeners {
        listener.set_nonblocking(true)?;
        if is_tcp(listener) {
            set_options(listener, limits)?;
        }
    }
    Ok(())
}

/// Sets the options that every connection has.
///
/// # Errors
/// Where a socket is broken, or is not for TCP.
pub fn set_options(socket: &impl AsFd, limits: &Limits) -> io::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &QUIET)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &PROBE_EVERY)?;
    setsockopt(socket, sockopt::TcpKeepCount, &PROBES)?;
    setsockopt(socket, sockopt::TcpUserTimeout, &user_timeout(limits))?;
    Ok(())
}

/// Whether this really is a TCP socket: the address of a Unix socket is of another family.
fn is_tcp(listener: &TcpListener) -> bool {
    listener.local_addr().is_ok()
}

/// `TCP_USER_TIMEOUT`: how long sent data may stay unacknowledged, in milliseconds; 0 leaves it to the system.
///
/// It is a little longer than the server's own timeout, so that it is the server that counts a timeout; and it covers
/// data still in flight after the server has closed. The kernel also applies it to keepalive probes and to a client
/// that is alive but reads nothing, so a server with long timeouts cannot use it.
fn user_timeout(limits: &Limits) -> u32 {
    const LONGEST: Duration = Duration::from_secs(300);
    const MARGIN: Duration = Duration::from_secs(2);
    let timeout = (limits.send_timeout <= LONGEST).then_some(limits.send_timeout + MARGIN);
    timeout.map_or(0, |timeout| timeout.as_millis() as u32)
}

/// Stops listening, unless the sockets belong to whoever passed them to this process. A process of another role may
/// hold a duplicate of the descriptor, so closing is not enough: only shutdown(2) affects all of them.
pub fn stop_listening(listeners: &[TcpListener], limits: &Limits) {
    if limits.keeps_listening {
        return;
    }
    for listener in listeners {
        let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
    }
}

/// The result of an accept.
#[derive(Debug)]
pub enum Accepted {
    /// A connection, which does not block, and its other end.
    Connection(TcpStream, SocketAddr),
    /// The backlog is empty.
    Nobody,
    /// The client or its network failed before the connection was accepted; accept(2) reports such errors, too.
    Gone,
    /// The system is out of resources, or the socket no longer listens: new connections have to wait.
    NoRoom(io::Error),
}

/// Accepts one connection, if one is pending.
pub fn accept(listener: &TcpListener) -> Accepted {
    let error = match socket::accept(listener) {
        Ok((stream, remote)) => return Accepted::Connection(stream, canonical(remote)),
        Err(error) => error,
    };
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => Accepted::Nobody,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINVAL) => {
            Accepted::NoRoom(error)
        }
        _ => Accepted::Gone,
    }
}

/// Logs, at a limited rate, that the system has no resources for another connection.
pub fn log_no_room(error: &io::Error, ledger: &Ledger) {
    // It does not listen any more: whoever shut it down will say what is next.
    if error.raw_os_error() != Some(libc::EINVAL) {
        ledger.grumble(format_args!(
            "cannot accept a connection: {error}; newcomers wait"
        ));
    }
}

/// The listeners and signals for which a loop around poll(2) waits.
#[derive(Debug)]
pub struct Door<'a> {
    listeners: &'a [TcpListener],
    signals: &'a Signals,
    reception: Reception<'a>,
    paused_until: Option<Instant>,
    stopping: bool,
}

/// What ended a wait.
#[derive(Debug)]
pub struct Ready {
    /// A signal came.
    pub signal: bool,
    /// Listeners with pending connections, one bit for each.
    waiting: u64,
    /// How many more connections are accepted from the first of them.
    left: usize,
}

impl<'a> Door<'a> {
    /// Opens it.
    ///
    /// # Errors
    /// Where a socket is broken, or there are too many.
    pub fn open(
        listeners: &'a [TcpListener],
        signals: &'a Signals,
        reception: Reception<'a>,
    ) -> io::Result<Self> {
        if listeners.len() + 2 > FEW {
            return Err(io::Error::other("too many addresses to listen on"));
        }
        Ok(Self {
            listeners,
            signals,
            reception,
            paused_until: None,
            stopping: false,
        })
    }

    /// Waits for a connection, a signal, for `other` to be readable, or for the time. Without `room` the listeners
    /// are not polled, so that newcomers wait in the backlog.
    ///
    /// # Errors
    /// As poll(2).
    pub fn wait(
        &mut self,
        room: bool,
        other: Option<BorrowedFd<'_>>,
        timeout: Duration,
    ) -> io::Result<Ready> {
        let timeout = timeout.min(self.reception.tick());
        let left = self.pause_left();
        let accepting = room && left.is_none();
        let listeners = self.listeners.iter();
        let fds = [Some(self.signals.as_fd()), other]
            .into_iter()
            .chain(listeners.map(|listener| accepting.then(|| listener.as_fd())));
        let ready = wait_few(fds, left.map_or(timeout, |left| left.min(timeout)))?;
        let signal = ready & 1 != 0;
        if signal {
            self.signals.clear();
            self.stopping |= self.asked_to_stop();
        }
        Ok(Ready {
            signal,
            waiting: ready >> 2,
            left: BURST,
        })
    }

    fn pause_left(&mut self) -> Option<Duration> {
        let until = self.paused_until?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.paused_until = None;
        }
        self.paused_until.map(|_| left)
    }

    fn asked_to_stop(&self) -> bool {
        self.signals
            .take_any(&[Signal::SIGTERM, Signal::SIGINT])
            .is_some()
    }

    /// Whether a signal asked the server to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Accepts the next pending connection; `None` once the server was asked to stop.
    pub fn accept(&mut self, ready: &mut Ready) -> Option<Guest> {
        if self.stopping {
            return None;
        }
        while ready.waiting != 0 {
            let index = ready.waiting.trailing_zeros() as usize;
            let accepted = accept(&self.listeners[index]);
            ready.left -= 1;
            if ready.left == 0 || matches!(accepted, Accepted::Nobody) {
                ready.waiting &= ready.waiting - 1;
                ready.left = BURST;
            }
            match accepted {
                Accepted::Connection(stream, remote) => {
                    if let Some(guest) = self.reception.let_in(stream, remote) {
                        return Some(guest);
                    }
                }
                Accepted::Nobody | Accepted::Gone => {}
                Accepted::NoRoom(error) => {
                    log_no_room(&error, self.reception.ledger());
                    self.pause();
                    return None;
                }
            }
        }
        None
    }

    /// Closes a connection that was admitted but for which the system has no resources, and stops accepting for a
    /// while.
    pub fn send_off(&mut self, guest: Guest, why: impl fmt::Display) {
        self.reception.send_off(guest, why);
        self.pause();
    }

    /// Stops accepting for a while.
    fn pause(&mut self) {
        self.paused_until = Some(Instant::now() + PAUSE);
    }

    /// Stops listening, and starts the grace period in which connections may finish.
    pub fn close(mut self, limits: &Limits) -> Grace<'a> {
        stop_listening(self.listeners, limits);
        self.reception.close_all();
        Grace::new(self.signals, limits.grace)
    }
}

/// The grace period: how long connections may take to finish after the server was asked to stop.
#[derive(Debug)]
pub struct Grace<'a> {
    signals: &'a Signals,
    deadline: Instant,
    over: bool,
}

impl<'a> Grace<'a> {
    /// Starts it now.
    pub fn new(signals: &'a Signals, grace: Duration) -> Self {
        Self {
            signals,
            deadline: Instant::now() + grace,
            over: false,
        }
    }

    /// Whether it is over, because time ran out or because a second signal arrived.
    pub fn is_over(&mut self) -> bool {
        let again = self
            .signals
            .take_any(&[Signal::SIGTERM, Signal::SIGINT])
            .is_some();
        self.over |= again || Instant::now() >= self.deadline;
        self.over
    }

    /// How long to wait at most before [`Grace::is_over`] is asked again.
    pub fn left(&self) -> Duration {
        if self.over {
            PAUSE
        } else {
            self.deadline.saturating_duration_since(Instant::now())
        }
    }

    /// Waits for a signal, for `other` to be readable, or for the end of the grace.
    ///
    /// # Errors
    /// As poll(2).
    pub fn wait(&self, other: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds = [Some(self.signals.as_fd()), other];
        if wait_readable(&fds, Some(self.left()))?[0] {
            self.signals.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::getsockopt;

    /// Nothing has to be set for each connection.
    #[test]
    fn what_is_accepted_inherits_the_options_of_its_listener() {
        let listeners = [TcpListener::bind("127.0.0.1:0").expect("a free port")];
        let limits = Limits::default();
        prepare(&listeners, &limits).expect("a socket takes options");
        let address = listeners[0].local_addr().expect("it is bound");
        let _client = TcpStream::connect(address).expect("it listens");
        let Accepted::Connection(accepted, _) = accept(&listeners[0]) else {
            panic!("nobody waits");
        };
        assert_eq!(getsockopt(&accepted, sockopt::TcpNoDelay), Ok(true));
        assert_eq!(getsockopt(&accepted, sockopt::KeepAlive), Ok(true));
        assert_eq!(getsockopt(&accepted, sockopt::TcpKeepIdle), Ok(QUIET));
        assert_eq!(
            getsockopt(&accepted, sockopt::TcpKeepInterval),
            Ok(PROBE_EVERY)
        );
        assert_eq!(getsockopt(&accepted, sockopt::TcpKeepCount), Ok(PROBES));
        assert_eq!(getsockopt(&accepted, sockopt::TcpUserTimeout), Ok(32_000));
    }

    #[test]
    fn a_patient_server_leaves_it_to_the_system_how_long_data_stay_unacknowledged() {
        assert_eq!(user_timeout(&Limits::patient()), 0);
    }
}
