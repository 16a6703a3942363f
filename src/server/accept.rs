//! The door: listening sockets, who may come in, and when it closes. Every model has it.

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

/// How long newcomers are left alone after the system refused a descriptor, a process or a thread: polling on would
/// spin.
pub const PAUSE: Duration = Duration::from_millis(100);
/// A client that is silent for so many seconds is probed so often, in such steps: whoever is gone is found out within
/// two minutes, however patient the server is.
const QUIET: u32 = 60;
const PROBE_EVERY: u32 = 15;
const PROBES: u32 = 4;
/// Connections taken from a listener in a row before the loop looks at its other duties.
const BURST: usize = 64;

/// Makes listeners fit for a loop: a client that gave up between poll and accept must not block it. The rest is for
/// what they accept, for sockets inherit it, at no cost: it sends at once, and clients that are gone without a word are
/// found out.
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

/// What every connection has.
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

/// Whether it is what its type says: a Unix socket has no address of that kind.
fn is_tcp(listener: &TcpListener) -> bool {
    listener.local_addr().is_ok()
}

/// How long what was sent may stay unacknowledged, in milliseconds; 0 where that is left to the system.
///
/// It is a little longer than what the server waits for itself, so that it is the server that counts a timeout; and it
/// holds for what is still on its way when the server has closed. The system also applies it to a client that is there
/// and takes nothing, and to probes: so it is of no use to a server that has patience.
fn user_timeout(limits: &Limits) -> u32 {
    const LONGEST: Duration = Duration::from_secs(300);
    const MARGIN: Duration = Duration::from_secs(2);
    let timeout = (limits.send_timeout <= LONGEST).then_some(limits.send_timeout + MARGIN);
    timeout.map_or(0, |timeout| timeout.as_millis() as u32)
}

/// Ends the listening, where that is ours to end. A process of another role may hold a copy of the descriptor: only
/// shutdown(2) reaches it.
pub fn stop_listening(listeners: &[TcpListener], limits: &Limits) {
    if limits.keeps_listening {
        return;
    }
    for listener in listeners {
        let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
    }
}

/// What an accept came to.
#[derive(Debug)]
pub enum Accepted {
    /// A connection, which does not block, and its other end.
    Connection(TcpStream, SocketAddr),
    /// Nobody waits any more.
    Nobody,
    /// The client gave up, or its network did: accept(2) hands such errors on.
    Gone,
    /// The system has no room, or does not listen any more: newcomers wait.
    NoRoom(io::Error),
}

/// Takes one connection, if one waits.
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

/// Logs, not too often, that the system has no room for a connection.
pub fn log_no_room(error: &io::Error, ledger: &Ledger) {
    // It does not listen any more: whoever shut it down will say what is next.
    if error.raw_os_error() != Some(libc::EINVAL) {
        ledger.grumble(format_args!(
            "cannot accept a connection: {error}; newcomers wait"
        ));
    }
}

/// Listeners and signals, as a loop around poll(2) waits for them.
#[derive(Debug)]
pub struct Door<'a> {
    listeners: &'a [TcpListener],
    signals: &'a Signals,
    reception: Reception<'a>,
    paused_until: Option<Instant>,
    stopping: bool,
}

/// What a wait found.
#[derive(Debug)]
pub struct Ready {
    /// A signal came.
    pub signal: bool,
    /// Listeners at which somebody waits, a bit for each.
    waiting: u64,
    /// How many more are let in at the first of them.
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

    /// Takes the next connection of those that wait; none any more where the server was asked to stop.
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

    /// Turns away a connection that was let in, for which the system has no room, and leaves newcomers alone for a
    /// while.
    pub fn send_off(&mut self, guest: Guest, why: impl fmt::Display) {
        self.reception.send_off(guest, why);
        self.pause();
    }

    /// Leaves newcomers alone for a while.
    fn pause(&mut self) {
        self.paused_until = Some(Instant::now() + PAUSE);
    }

    /// Stops listening; connections have the time of the grace to be finished.
    pub fn close(mut self, limits: &Limits) -> Grace<'a> {
        stop_listening(self.listeners, limits);
        self.reception.close_all();
        Grace::new(self.signals, limits.grace)
    }
}

/// The time that connections have to be finished after the server was asked to stop.
#[derive(Debug)]
pub struct Grace<'a> {
    signals: &'a Signals,
    deadline: Instant,
    over: bool,
}

impl<'a> Grace<'a> {
    /// It begins now.
    pub fn new(signals: &'a Signals, grace: Duration) -> Self {
        Self {
            signals,
            deadline: Instant::now() + grace,
            over: false,
        }
    }

    /// Whether it is over: by time, or because a second signal came.
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
