//! The service manager that has started a daemon and waits to hear from it: sd_notify(3).
//!
//! The crate sd-notify knows the words. The socket is ours: it is opened while that can be done, for a confined process
//! opens none, and no message waits for a manager that does not read.

use std::cell::Cell;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sd_notify::NotifyState;

use crate::server::Ledger;
use crate::sys::signals::{Signals, Watcher};
use crate::text::without_errno;

/// The variables with which a manager says what it wants: for this process, and for nobody whom it starts.
pub const VARIABLES: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];
/// How long a message that matters waits for a manager that is busy, in milliseconds.
const PATIENCE: u16 = 1000;
/// A sign of life comes so often within the time after which the manager loses its patience: one may get lost.
const BEATS: u32 = 3;

/// The service manager, if there is one. Copies are the same.
#[derive(Debug, Clone, Default)]
pub struct Manager(Option<Rc<Link>>);

#[derive(Debug)]
struct Link {
    socket: UnixDatagram,
    /// After so long without a sign of life the manager takes the daemon for dead.
    watchdog: Option<Duration>,
    stopping: Cell<bool>,
}

impl Manager {
    /// The one that the environment names, if it can be reached: where it cannot, the daemon runs all the same.
    pub fn of_environment() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let Some(address) = address else {
            return Self(None);
        };
        match connect(&address) {
            Ok(socket) => Self(Some(Rc::new(Link {
                socket,
                watchdog: sd_notify::watchdog_enabled().filter(|time| !time.is_zero()),
                stopping: Cell::new(false),
            }))),
            Err(error) => {
                let error = without_errno(&error.to_string());
                log::warn!("cannot reach the service manager of NOTIFY_SOCKET: {error}");
                Self(None)
            }
        }
    }

    /// After how long without a sign of life the manager takes the daemon for dead.
    pub fn watchdog(&self) -> Option<Duration> {
        self.0.as_ref().and_then(|link| link.watchdog)
    }

    /// How often a loop has to show a sign of life.
    pub fn beat(&self) -> Option<Duration> {
        self.watchdog().map(|watchdog| watchdog / BEATS)
    }

    /// Lets the manager know what the loop of these signals does, which serves what is in the books.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn watch(&self, signals: Signals, ledger: &Arc<Ledger>) -> io::Result<Signals> {
        if self.0.is_none() {
            return Ok(signals);
        }
        let (manager, ledger) = (self.clone(), Arc::clone(ledger));
        signals.watched_by(Rc::new(Serving { manager, ledger }), self.beat())
    }

    /// The daemon is ready: whoever connects is served.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// What is to be seen in the manager's overview.
    pub fn status(&self, status: &str) {
        self.send(&[NotifyState::Status(status)]);
    }

    /// The loop lives, and does this.
    pub fn lives(&self, status: &str) {
        self.send(&[NotifyState::Watchdog, NotifyState::Status(status)]);
    }

    /// The daemon looks at its configuration again.
    pub fn reloading(&self) {
        // Without the time a manager would not believe it; the clock of a process cannot fail.
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.tell(&[NotifyState::Reloading, now]);
        }
    }

    /// It has done that.
    pub fn reloaded(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// The daemon stops, and does this until then. It is told once.
    pub fn stopping(&self, status: &str) {
        if self
            .0
            .as_ref()
            .is_some_and(|link| !link.stopping.replace(true))
        {
            self.tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
        }
    }

    /// Sends what must not get lost: for a moment it waits for room.
    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(link) = &self.0 else { return };
        if self.send(states) {
            return;
        }
        let mut room = [PollFd::new(link.socket.as_fd(), PollFlags::POLLOUT)];
        let _ = poll(&mut room, PollTimeout::from(PATIENCE));
        self.send(states);
    }

    /// Sends what the next message makes good if it gets lost. Answers whether it found room, or nobody to have it.
    fn send(&self, states: &[NotifyState<'_>]) -> bool {
        let Some(link) = &self.0 else { return true };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        let sent = link.socket.send(message.as_bytes());
        !sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A path, or, after an @, a name that is in no directory.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match address.as_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        [b'/', ..] => socket.connect(address)?,
        _ => return Err(io::ErrorKind::Unsupported.into()),
    }
    Ok(socket)
}

/// The loop of a server.
#[derive(Debug)]
struct Serving {
    manager: Manager,
    ledger: Arc<Ledger>,
}

impl Watcher for Serving {
    fn lives(&self) {
        let tally = self.ledger.tally();
        self.manager
            .lives(&format!("serving: {} now, {tally}", tally.live()));
    }

    fn stopping(&self) {
        let live = self.ledger.tally().live();
        self.manager
            .stopping(&format!("finishing: {live} connections now"));
    }

    fn reloading(&self) {
        self.manager.reloading();
    }

    fn reloaded(&self) {
        self.manager.reloaded();
    }
}

/// Where a daemon listens, for the manager's overview.
pub fn listening_on(listeners: &[TcpListener]) -> String {
    let addresses = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok());
    let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
    format!("listening on {}", addresses.join(", "))
}
