//! The processes that answer status requests: one for the control socket and one for HTTP, so that strangers cannot get
//! in the operator's way. Each is a server of this program, with a child for each request.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

use super::hosts::Hosts;
use super::process::{Process, earlier};
use super::service::{Source, StatusService};
use crate::confine::{Confinement, Role};
use crate::logging::exit_code;
use crate::net::address::ListenAddress;
use crate::net::control::{ControlFile, ControlSocket};
use crate::net::listen;
use crate::server::{self, Ledger, Limits, Model};
use crate::sys::child::Ended;
use crate::sys::fork;
use crate::sys::signals::Signals;
use crate::text::escape_path;

/// A listening socket, and the process that serves it.
#[derive(Debug)]
struct Door {
    listeners: Vec<TcpListener>,
    /// For which hosts it answers.
    hosts: Hosts,
    process: Process,
}

/// All doors of a server: the sockets at which its status can be requested.
#[derive(Debug, Default)]
pub struct Doors {
    doors: Vec<Door>,
    /// The file of the control socket.
    control: Option<ControlFile>,
    /// Where there is HTTP.
    http: Vec<SocketAddr>,
}

impl Doors {
    /// Opens the sockets that the options ask for. Must be called before privileges are dropped: it gives the control
    /// socket to the user as whom the server will run.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn open(
        control: Option<&Path>,
        http: &[ListenAddress],
        http_hosts: &[String],
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
            let control = format!("control socket {name}");
            doors.add(&control, vec![listener], Hosts::all());
        }
        if !http.is_empty() {
            let listeners = listen::open(http, limits().backlog)?;
            let addresses = listeners.iter().map(TcpListener::local_addr);
            doors.http = addresses.collect::<io::Result<_>>()?;
            let named = http.iter().filter_map(|at| at.host.as_deref());
            let names = http_hosts.iter().map(String::as_str).chain(named);
            let hosts = Hosts::new(doors.http.iter().copied(), names);
            doors.add("HTTP", listeners, hosts);
        }
        Ok(doors)
    }

    fn add(&mut self, name: &str, listeners: Vec<TcpListener>, hosts: Hosts) {
        let process = Process::new(format!("tells the status at {name}"));
        self.doors.push(Door {
            listeners,
            hosts,
            process,
        });
    }

    /// Whether no status can be requested.
    pub fn is_empty(&self) -> bool {
        self.doors.is_empty()
    }

    /// The directory of the control socket, needed to remove it at the end.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.control.as_ref().map(ControlFile::directory)
    }

    /// The descriptors needed by the process that starts them.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let listeners = self.doors.iter().flat_map(|door| &door.listeners);
        let listeners = listeners.map(AsFd::as_fd);
        let control = self.control.iter().flat_map(ControlFile::descriptors);
        listeners.chain(control).collect()
    }

    /// Where there is HTTP.
    pub fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Whether a process is to be started.
    pub fn are_waiting(&self) -> bool {
        self.processes().count() < self.doors.len()
    }

    /// The running processes.
    pub fn processes(&self) -> impl Iterator<Item = Pid> + '_ {
        self.doors.iter().filter_map(|door| door.process.pid())
    }

    /// Starts the processes that are due; returns when the next one is.
    pub fn start(
        &mut self,
        source: &Arc<dyn Source>,
        confinement: &Confinement,
    ) -> Option<Instant> {
        let doors = self.doors.iter_mut();
        doors.fold(None, |next, door| {
            earlier(next, door.start(source, confinement))
        })
    }

    /// A child ended: returns whether it was one of these, which is then restarted.
    pub fn ended(&mut self, ended: Ended) -> bool {
        let mut doors = self.doors.iter_mut();
        doors.any(|door| door.process.ended(ended))
    }

    /// Kills the processes, to be started again with more to report.
    pub fn restart(&mut self) {
        for door in &mut self.doors {
            // By force: a server that is asked to stop would shut down the sockets, which its successor needs.
            door.process.end();
        }
    }

    /// Kills the processes for good, and removes the control socket.
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
    fn start(&mut self, source: &Arc<dyn Source>, confinement: &Confinement) -> Option<Instant> {
        let Self {
            listeners,
            hosts,
            process,
        } = self;
        let keep: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        process.start(|| {
            fork::spawn_leaf(&keep, || {
                let served = serve(listeners, hosts, source, confinement);
                exit_code(
                    "the status server",
                    served.context("cannot tell the status"),
                )
            })
        })
    }
}

/// The main function of a door's process, which blocks all signals.
fn serve(
    listeners: &[TcpListener],
    hosts: &Hosts,
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
    let service = StatusService::new(Arc::clone(source), hosts.clone());
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

/// Limits for clients that are programs or browsers nearby, with one request each.
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
