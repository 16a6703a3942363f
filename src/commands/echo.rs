//! `cascade echo`: a server that sends lines back under any model, and a client for it.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::Status;
use super::limits::limits_with_pool;
use crate::cli::{Echo, EchoClient, EchoServe, EchoSide, ServerOptions};
use crate::confine::{Confinement, Role};
use crate::daemon::manager::{Manager, listening_on};
use crate::daemon::sockets::Listen;
use crate::daemon::{self, inetd, pidfile};
use crate::net::address::{HostPort, ListenAddress};
use crate::net::connect::{self, NotConnected, by_turns};
use crate::net::resolve;
use crate::net::rio::{Reader, writen};
use crate::output::announce;
use crate::server::{self, Ledger, Limits};
use crate::service::echo::EchoService;
use crate::sys::signals::Signals;

/// How long an address may take to answer.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How much is read of standard input at once, and the longest part of a line that is printed at once.
const PART: usize = 64 << 10;

/// Runs one of both sides.
///
/// # Errors
/// Where it cannot begin, or the other side ends too early.
pub fn run(options: Echo) -> anyhow::Result<Status> {
    match options.side {
        EchoSide::Serve(options) => serve(*options),
        EchoSide::Client(options) => client(options),
    }
}

/// Serves until a signal.
fn serve(options: EchoServe) -> anyhow::Result<Status> {
    let verbose = options.verbose || options.resolve;
    daemon::log_as(options.daemon.log, verbose, false);
    let ServerOptions { model, pool } = options.server;
    let confinement = Confinement::new(&options.confine)?;
    let _pidfile = pidfile::hold(options.daemon.pidfile.as_deref(), &confinement)?;
    let mut limits = limits_with_pool(Limits::patient(), &options.limits, pool);
    if options.daemon.inetd {
        let service = service(&options, &confinement)?;
        return inetd::serve(&service, &limits, &confinement, |_, report| match report {});
    }
    let listen = Listen::chosen(&options.listen, ListenAddress::any(0))?;
    let listeners = listen.open(&mut limits)?;
    let (manager, ledger) = (Manager::of_environment(), Arc::new(Ledger::new()?));
    let service = service(&options, &confinement)?;
    // Before anybody is told that we listen: whoever reads that may ask us to stop.
    let signals = Signals::new(&[
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGCHLD,
        Signal::SIGUSR1,
    ])
    .and_then(|signals| manager.watch(signals, &ledger))
    .context("cannot catch signals")?;
    confinement.leave()?;
    confinement.enter(Role::Server {
        threads: model.has_threads(),
        tables: false,
        tells: None,
    })?;
    log::info!("{confinement}");
    manager.ready(&listening_on(&listeners));
    announce(&listeners)?;
    server::serve(model, &listeners, &service, &limits, &ledger, &signals)
        .context("cannot go on serving")?;
    log::info!("stopped after {}", ledger.tally());
    Ok(Status::Done)
}

fn service(options: &EchoServe, confinement: &Confinement) -> anyhow::Result<EchoService> {
    Ok(match (options.resolve, options.verbose) {
        (true, _) => {
            let begin = || confinement.become_user();
            EchoService::naming(begin).context("cannot look names up")?
        }
        (false, true) => EchoService::verbose(),
        (false, false) => EchoService::quiet(),
    })
}

/// Sends lines, prints replies.
fn client(options: EchoClient) -> anyhow::Result<Status> {
    let server = HostPort {
        host: options.host,
        port: options.port,
    };
    let socket = connect(&server)?;
    socket
        .set_nonblocking(true)
        .context("cannot use the socket")?;
    let mut exchange = Exchange {
        socket: &socket,
        replies: Reader::new(&socket),
        reply: Vec::new(),
        pending: Vec::new(),
        input_ended: false,
        owed: 0,
    };
    while !exchange.turn(&server)? {}
    Ok(Status::Done)
}

/// Connects to the first address that answers.
fn connect(server: &HostPort) -> anyhow::Result<TcpStream> {
    let addresses = by_turns(&resolve::here(&server.host, &server.port)?);
    let connected = connect::to_first(&addresses, CONNECT_TIME).map_err(NotConnected::into_error);
    let connected = connected.and_then(|(socket, _)| {
        socket.set_nodelay(true)?;
        Ok(socket)
    });
    connected.with_context(|| format!("cannot connect to {server}"))
}

/// What is under way between standard input, the server and standard output.
///
/// Both directions go on at the same time: a server that sends back while it still receives would otherwise wait for
/// a client that waits for it.
struct Exchange<'a> {
    socket: &'a TcpStream,
    replies: Reader<&'a TcpStream>,
    /// The part of a line that has come back.
    reply: Vec<u8>,
    /// What was read of standard input and not sent yet. Only when it is empty more is read.
    pending: Vec<u8>,
    input_ended: bool,
    /// How many bytes have been sent and not come back.
    owed: u64,
}

impl Exchange<'_> {
    /// Waits for what is possible next, and does it. Answers whether all is done.
    fn turn(&mut self, server: &HostPort) -> anyhow::Result<bool> {
        let (input, socket) = self.wait().context("cannot wait for input")?;
        if input {
            self.read_input().context("cannot read standard input")?;
        }
        if let Err(error) = self.send() {
            // Not as a cause: a broken pipe is an error here, unlike one behind standard output.
            bail!("cannot send to {server}: {error}");
        }
        let ended = socket && self.receive(server)?;
        if ended && !(self.input_ended && self.pending.is_empty() && self.owed == 0) {
            bail!("cannot read from {server}: the server has closed the connection");
        }
        Ok(ended)
    }

    /// Whether standard input and the socket are ready to be read.
    fn wait(&self) -> io::Result<(bool, bool)> {
        let stdin = io::stdin();
        let reads = !self.input_ended && self.pending.is_empty();
        let writes = if self.pending.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::POLLOUT
        };
        let mut fds = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN | writes)];
        if reads {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok((false, false)),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| {
            fd.revents()
                .is_some_and(|events| events != PollFlags::POLLOUT && !events.is_empty())
        };
        Ok((fds.get(1).is_some_and(is_ready), is_ready(&fds[0])))
    }

    /// Reads once: what follows may take a person's time.
    fn read_input(&mut self) -> io::Result<()> {
        let mut part = vec![0; PART];
        match nix::unistd::read(io::stdin(), &mut part) {
            Ok(0) => self.input_ended = true,
            Ok(n) => {
                part.truncate(n);
                self.pending = part;
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        if self.input_ended {
            // The server sees the end of input, echoes what is left, and closes. If it is gone, reading tells.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    /// Sends as much as the socket takes.
    fn send(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            match self.socket.write(&self.pending) {
                Ok(n) => {
                    self.pending.drain(..n);
                    self.owed += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Prints the lines that have come back, and the rest at the end. Answers whether the server has closed.
    fn receive(&mut self, server: &HostPort) -> anyhow::Result<bool> {
        loop {
            let whole = match self.replies.readline(&mut self.reply, PART) {
                Ok(whole) => whole,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => bail!("cannot read from {server}: {error}"),
            };
            self.owed = self.owed.saturating_sub(self.reply.len() as u64);
            // Without a context: where nobody reads what we print, that is no error.
            let mut stdout = io::stdout().lock();
            writen(&mut stdout, &self.reply)?;
            stdout.flush()?;
            self.reply.clear();
            if !whole {
                return Ok(true);
            }
        }
    }
}
