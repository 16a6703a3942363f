//! A connection that somebody else has accepted, on standard input and output: inetd(8), s6-tcpserver, a unit of systemd
//! with `Accept=yes`, or a person with a pipe.
//!
//! Where both are one socket, that is the connection. Where they are not (files, pipes, a terminal, what decrypts) two
//! processes carry bytes between them and a socket of ours, and look at none.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use nix::sys::socket::{SockType, SockaddrStorage, getpeername, getsockopt, sockopt};
use nix::sys::stat::fstat;
use nix::unistd::{Pid, dup2_stdin, dup2_stdout};
use std::os::fd::AsRawFd;

use crate::confine::Confinement;
use crate::confine::Role;
use crate::exit::Status;
use crate::server::reports::ReportOf;
use crate::server::single::{self, Accepted};
use crate::server::{Limits, accept};
use crate::service::Service;
use crate::sys::child;
use crate::sys::fork;
use crate::sys::signals::Signals;

/// How much is carried at once.
const PART: usize = 64 << 10;
/// How often is looked whether what was sent has been carried.
const LOOK: Duration = Duration::from_millis(20);

/// Serves the connection, and has what its session reports applied by `apply`.
///
/// # Errors
/// Where standard input and output are no connection and cannot be made one, where the process cannot be confined, and
/// those of `apply`. What the client does is no error.
pub fn serve<S: Service>(
    service: &S,
    limits: &Limits,
    confinement: &Confinement,
    apply: impl FnMut(SocketAddr, ReportOf<S>) -> anyhow::Result<()>,
) -> anyhow::Result<Status> {
    let mut apply = apply;
    let signals = Signals::new(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD])
        .context("cannot catch signals")?;
    let (accepted, carriers) = take(limits)?;
    confinement.leave()?;
    confinement.gain_nothing()?;
    log::debug!("{confinement}");
    let role = Role::Server {
        threads: false,
        tables: false,
        tells: None,
    };
    let remote = accepted.remote;
    let confine = || confinement.enter(role);
    let served = single::serve(accepted, service, limits, &signals, confine, |report| {
        apply(remote, report)
    });
    if let Some(carriers) = carriers {
        carriers.end(limits.send_timeout);
    }
    served.map(|_| Status::Done)
}

/// Takes standard input and output, of which nothing is left then.
fn take(limits: &Limits) -> anyhow::Result<(Accepted, Option<Carriers>)> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let identity = |fd: BorrowedFd<'_>| fstat(fd).map(|status| (status.st_dev, status.st_ino));
    let kind = getsockopt(&stdin, sockopt::SockType);
    let same = identity(stdin.as_fd())? == identity(stdout.as_fd())?;
    let (socket, remote, carriers) = match kind {
        Ok(kind) if same => {
            let peer = getpeername::<SockaddrStorage>(stdin.as_fd().as_raw_fd());
            ensure!(
                kind == SockType::Stream && peer.is_ok(),
                "cannot serve standard input: it is a socket without a client; one that listens is for LISTEN_FDS (Accept=no)"
            );
            let socket = stdin.as_fd().try_clone_to_owned()?;
            let remote = peer.ok().and_then(address);
            if remote.is_some() {
                accept::set_options(&socket, limits)?;
            }
            (socket, remote, None)
        }
        _ => {
            let (ours, theirs) = UnixStream::pair()?;
            let carriers = Carriers::start(&theirs).context("cannot carry standard input")?;
            (OwnedFd::from(ours), None, Some(carriers))
        }
    };
    UnixStream::from(socket.try_clone()?).set_nonblocking(true)?;
    // Nobody is to write into the conversation, or to keep it open.
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    let remote = remote.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into());
    Ok((Accepted { socket, remote }, carriers))
}

/// The address of a client, where it has one.
fn address(peer: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = peer.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    let v6 = || {
        peer.as_sockaddr_in6()
            .map(|v6| SocketAddr::V6((*v6).into()))
    };
    v4.or_else(v6).map(crate::server::connection::canonical)
}

/// The processes that carry bytes.
#[derive(Debug)]
struct Carriers {
    inward: Pid,
    outward: Pid,
}

impl Carriers {
    fn start(socket: &UnixStream) -> io::Result<Self> {
        let keep = [socket.as_fd()];
        let inward = fork::spawn_leaf(&keep, || {
            let carried = carry(&mut io::stdin().lock(), &mut &*socket);
            let _ = socket.shutdown(Shutdown::Write);
            carried.is_err().into()
        })?;
        let outward = fork::spawn_leaf(&keep, || {
            carry(&mut &*socket, &mut io::stdout().lock())
                .is_err()
                .into()
        })?;
        Ok(Self { inward, outward })
    }

    /// The connection is over: what was sent has so long to get to where it goes, and the rest is not waited for.
    fn end(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        child::signal(self.inward, Signal::SIGKILL);
        while Instant::now() < deadline {
            let Ok(None) = child::try_wait(self.outward) else {
                return;
            };
            std::thread::sleep(LOOK);
        }
        child::signal(self.outward, Signal::SIGKILL);
    }
}

/// Carries bytes until there are no more.
fn carry(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut part = vec![0; PART];
    loop {
        match from.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                to.write_all(&part[..n])?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
