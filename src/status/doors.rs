//! The processes that answer those who ask: one for the control socket and one for HTTP, so that no stranger is in the
//! operator's way. Each is a server of this program, with a child for each request.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::service::{Source, StatusService};
use crate::confine::{Confinement, Role};
use crate::logging::complain;
use crate::net::address::ListenAddress;
use crate::net::control::{ControlFile, ControlSocket};
use crate::net::listen;
use crate::output::print_bytes;
use crate::server::{self, Ledger, Limits, Model};
use crate::sys::fork;
use crate::sys::signals::Signals;
use crate::text::escape_path;

/// How long a process that died rests before it is started again.
const REST: Duration = Duration::from_secs(1);

/// A door, and its process.
#[derive(Debug)]
struct Door {
    /// What it is, for the log.
    name: String,
    listeners: Vec<TcpListener>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Due(Instant),
    Running(Pid),
}

/// All doors of a server.
#[derive(Debug, Default)]
pub struct Doors {
    doors: Vec<Door>,
    /// The file of the control socket.
    control: Option<ControlFile>,
    /// Where there is HTTP.
    http: Vec<SocketAddr>,
}

impl Doors {
    /// Listens where the options say. While the process has all its rights: the control socket becomes the user's as
    /// whom the server will run.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn open(
        control: Option<&Path>,
        http: &[ListenAddress],
        confinement: &Confinement,
    ) -> anyhow::Result<Self> {
        let mut doors = Self::default();
        if let Some(path) = control {
            let ControlSocket { listener, file } = ControlSocket::open(path)?;
            let name = escape_path(path);
            if let Some((user, group)) = confinement.user() {
                file.give_to(user, group)
                    .with_context(|| format!("cannot change the owner of {name}"))?;
            }
            doors.control = Some(file);
            doors.add(format!("control socket {name}"), vec![listener]);
        }
        if !http.is_empty() {
            let listeners = listen::open(http, limits().backlog)?;
            let addresses = listeners.iter().map(TcpListener::local_addr);
            doors.http = addresses.collect::<io::Result<_>>()?;
            doors.add("HTTP".into(), listeners);
        }
        Ok(doors)
    }

    fn add(&mut self, name: String, listeners: Vec<TcpListener>) {
        self.doors.push(Door {
            name,
            listeners,
            state: State::Due(Instant::now()),
        });
    }

    /// Whether nobody is to be told.
    pub fn is_empty(&self) -> bool {
        self.doors.is_empty()
    }

    /// Whether there is HTTP.
    pub fn has_http(&self) -> bool {
        !self.http.is_empty()
    }

    /// The directory of the control socket, from which it is removed at the end.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.control.as_ref().map(ControlFile::directory)
    }

    /// What the process needs that starts them.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let listeners = self.doors.iter().flat_map(|door| &door.listeners);
        let listeners = listeners.map(AsFd::as_fd);
        let control = self.control.iter().flat_map(ControlFile::descriptors);
        listeners.chain(control).collect()
    }

    /// Says where the page is, for people and scripts.
    ///
    /// # Errors
    /// As [`print_bytes`].
    pub fn announce(&self) -> anyhow::Result<()> {
        self.http
            .iter()
            .try_for_each(|at| print_bytes(format!("status at http://{at}/\n").as_bytes()))
    }

    /// Whether a process is to be started.
    pub fn are_waiting(&self) -> bool {
        let is_due = |door: &Door| matches!(door.state, State::Due(_));
        self.doors.iter().any(is_due)
    }

    /// The processes that run.
    pub fn processes(&self) -> impl Iterator<Item = Pid> + '_ {
        self.doors.iter().filter_map(|door| match door.state {
            State::Running(pid) => Some(pid),
            State::Due(_) => None,
        })
    }

    /// Starts the processes that are due; says when another one will be.
    pub fn start(
        &mut self,
        source: &Arc<dyn Source>,
        confinement: &Confinement,
    ) -> Option<Instant> {
        let now = Instant::now();
        let mut next = None;
        for door in &mut self.doors {
            match door.state {
                State::Running(_) => {}
                State::Due(at) if at > now => next = Some(next.map_or(at, |next| at.min(next))),
                State::Due(_) => door.start(source, confinement),
            }
        }
        next
    }

    /// A process ended; answers whether it was one of these. It will be started again.
    pub fn ended(&mut self, pid: Pid, how: &str) -> bool {
        let running = |door: &&mut Door| door.state == State::Running(pid);
        let Some(door) = self.doors.iter_mut().find(running) else {
            return false;
        };
        log::warn!(
            "the process that tells the status at {} ended: {how}; it is started again",
            door.name
        );
        door.state = State::Due(Instant::now() + REST);
        true
    }

    /// Ends the processes, to be started again with more to tell.
    pub fn restart(&mut self) {
        for door in &mut self.doors {
            door.end();
        }
    }

    /// Ends the processes for good, and removes the control socket.
    pub fn stop(&mut self) {
        self.restart();
        self.doors.clear();
        if let Some(control) = self.control.take()
            && let Err(error) = control.remove()
        {
            // A user who has no right to the directory leaves it; the next server replaces it.
            log::debug!("cannot remove the control socket: {error}");
        }
    }
}

impl Door {
    fn start(&mut self, source: &Arc<dyn Source>, confinement: &Confinement) {
        let keep: Vec<_> = self.listeners.iter().map(AsFd::as_fd).collect();
        let started = fork::spawn_leaf(&keep, || {
            let served = serve(&self.listeners, source, confinement);
            served.map_or_else(
                |error| {
                    complain(&error.context("cannot tell the status"));
                    1
                },
                |()| 0,
            )
        });
        self.state = match started {
            Ok(pid) => State::Running(pid),
            Err(error) => {
                log::warn!("cannot start a process: {error}");
                State::Due(Instant::now() + REST)
            }
        };
    }

    /// By force: a server that is asked to stop would shut down the sockets, which its successor needs.
    fn end(&mut self) {
        if let State::Running(pid) = self.state {
            // Not reaped yet: the pid cannot be another's.
            let _ = kill(pid, Signal::SIGKILL);
            while let Err(Errno::EINTR) = waitpid(pid, None) {}
        }
        self.state = State::Due(Instant::now());
    }
}

/// The life of a door. No signal that can be blocked ends it.
fn serve(
    listeners: &[TcpListener],
    source: &Arc<dyn Source>,
    confinement: &Confinement,
) -> anyhow::Result<()> {
    SigSet::all().thread_block()?;
    let signals = Signals::new(&[Signal::SIGCHLD])?;
    source.only_look()?;
    confinement.enter(Role::Server {
        threads: false,
        tables: false,
        tells: None,
    })?;
    let service = StatusService::new(Arc::clone(source));
    let (limits, ledger) = (limits(), Ledger::new()?);
    server::serve(
        Model::Process,
        listeners,
        &service,
        &limits,
        &ledger,
        &signals,
    )?;
    Ok(())
}

/// Whoever asks is a program or a browser, near by, and asks one thing.
fn limits() -> Limits {
    const MOMENT: Duration = Duration::from_secs(5);
    Limits {
        max_connections: 64,
        max_per_address: 16,
        idle_timeout: MOMENT,
        request_timeout: MOMENT,
        send_timeout: 2 * MOMENT,
        max_lifetime: 12 * MOMENT,
        grace: Duration::ZERO,
        backlog: 128,
        ..Limits::default()
    }
}
