//! Connecting to whoever has several addresses (RFC 8305): the addresses are tried in their order, each with a short head
//! start before the next; the first that answers is taken. Without threads: who connects may fork.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, socket, sockopt,
};

use crate::sys::poll::wait_writable;

/// How long an address is tried alone before the next is tried as well (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Why none of the addresses could be connected to.
#[derive(Debug)]
pub struct NotConnected {
    /// The addresses, and what was wrong with each.
    pub tried: Vec<(SocketAddr, io::Error)>,
}

impl NotConnected {
    /// The error of the first address; all of them in its text where there are several.
    pub fn into_error(mut self) -> io::Error {
        match self.tried.len() {
            0 => io::ErrorKind::TimedOut.into(),
            1 => self.tried.remove(0).1,
            _ => io::Error::new(self.tried[0].1.kind(), self.to_string()),
        }
    }

    /// The error number that says most: that of an address which answered, even if it refused.
    pub fn errno(&self) -> i32 {
        let errnos = || {
            self.tried
                .iter()
                .filter_map(|(_, error)| error.raw_os_error())
        };
        let refused = errnos().find(|errno| *errno == libc::ECONNREFUSED);
        refused
            .or_else(|| errnos().next())
            .unwrap_or(libc::ETIMEDOUT)
    }
}

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (address, error)) in self.tried.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            let error = crate::text::without_errno(&error.to_string());
            write!(f, "{comma}{address}: {error}")?;
        }
        Ok(())
    }
}

/// An attempt that is under way.
struct Attempt {
    address: SocketAddr,
    socket: OwnedFd,
}

/// Connects to one of these addresses. The socket is a blocking one.
///
/// # Errors
/// Where none of them answers in this time.
pub fn to_first(
    addresses: &[SocketAddr],
    timeout: Duration,
) -> Result<(TcpStream, SocketAddr), NotConnected> {
    let deadline = Instant::now() + timeout;
    let mut waiting = addresses.iter().copied();
    let mut next = waiting.next();
    let mut next_at = Instant::now();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut tried = Vec::new();
    loop {
        let now = Instant::now();
        if let Some(address) = next.filter(|_| attempts.is_empty() || now >= next_at) {
            match begin(address) {
                Ok(attempt) => attempts.push(attempt),
                Err(error) => tried.push((address, error)),
            }
            (next, next_at) = (waiting.next(), now + HEAD_START);
            continue;
        }
        if attempts.is_empty() {
            return Err(NotConnected { tried });
        }
        if now >= deadline {
            let late = attempts
                .iter()
                .map(|attempt| attempt.address)
                .chain(next)
                .chain(waiting);
            tried.extend(late.map(|address| (address, Errno::ETIMEDOUT.into())));
            return Err(NotConnected { tried });
        }
        let until = if next.is_some() {
            next_at.min(deadline)
        } else {
            deadline
        };
        let sockets: Vec<_> = attempts.iter().map(|one| one.socket.as_fd()).collect();
        let ready = match wait_writable(&sockets, until) {
            Ok(ready) => ready,
            Err(error) => {
                tried.push((attempts[0].address, error));
                return Err(NotConnected { tried });
            }
        };
        for index in (0..attempts.len()).rev().filter(|index| ready[*index]) {
            let Attempt { address, socket } = attempts.remove(index);
            match finish(socket) {
                Ok(stream) => return Ok((stream, address)),
                // The next need not wait any longer.
                Err(error) => {
                    tried.push((address, error));
                    next_at = now;
                }
            }
        }
    }
}

/// Addresses in the order in which they are tried: that of the system, families by turns, so that one family that leads
/// nowhere costs one head start and not several (RFC 8305, section 4).
pub fn by_turns(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_first =
        |address: &&SocketAddr| address.is_ipv6() == addresses.first().is_some_and(|a| a.is_ipv6());
    let mut first = addresses.iter().filter(is_first);
    let mut others = addresses.iter().filter(|address| !is_first(address));
    let mut ordered = Vec::new();
    while ordered.len() < addresses.len() {
        ordered.extend(first.next());
        ordered.extend(others.next());
    }
    ordered
}

fn begin(address: SocketAddr) -> io::Result<Attempt> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(Attempt { address, socket }),
        Err(error) => Err(error.into()),
    }
}

fn finish(socket: OwnedFd) -> io::Result<TcpStream> {
    match getsockopt(&socket, sockopt::SocketError)? {
        0 => {
            let stream = TcpStream::from(socket);
            stream.set_nonblocking(false)?;
            Ok(stream)
        }
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const LONG: Duration = Duration::from_secs(20);

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        (listener, address)
    }

    fn nobody() -> SocketAddr {
        listener().1
    }

    /// A listener whose backlog is full: it does not answer. And those that fill it.
    fn silent() -> (OwnedFd, SocketAddr, Vec<Attempt>) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let listener =
            socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        nix::sys::socket::bind(listener.as_raw_fd(), &SockaddrStorage::from(any))
            .expect("an address");
        let backlog = nix::sys::socket::Backlog::new(0).expect("a backlog");
        nix::sys::socket::listen(&listener, backlog).expect("it listens");
        let listener = TcpListener::from(listener);
        let address = listener.local_addr().expect("an address");
        let full = (0..4)
            .map(|_| begin(address).expect("an attempt"))
            .collect();
        (listener.into(), address, full)
    }

    #[test]
    fn whoever_refuses_or_is_silent_is_followed_by_the_next() {
        let (_listener, good) = listener();
        let (_full, silent, _attempts) = silent();
        for addresses in [
            vec![good],
            vec![nobody(), good],
            vec![silent, good],
            vec![silent, nobody(), nobody(), good],
            vec![good, silent],
        ] {
            let (stream, address) = to_first(&addresses, LONG).expect("one answers");
            assert_eq!(address, good, "{addresses:?}");
            assert_eq!(stream.peer_addr().expect("it is connected"), good);
        }
    }

    #[test]
    fn an_error_names_all_that_were_tried() {
        let (one, other) = (nobody(), nobody());
        let (_full, silent, _attempts) = silent();
        let tried = to_first(&[one, silent, other], 2 * HEAD_START).expect_err("nobody answers");
        assert_eq!(tried.errno(), libc::ECONNREFUSED);
        let text = tried.into_error().to_string();
        for address in [one, other, silent] {
            assert!(text.contains(&address.to_string()), "{text}");
        }
        assert!(
            text.contains("refused") && text.contains("timed out"),
            "{text}"
        );
        let alone = to_first(&[one], LONG).expect_err("nobody answers");
        let kind = alone.into_error().kind();
        assert_eq!(kind, io::ErrorKind::ConnectionRefused);
        assert!(to_first(&[], LONG).is_err());
    }

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (a, b, c) = (parse("[::1]:1"), parse("[::2]:1"), parse("[::3]:1"));
        let (d, e) = (parse("127.0.0.1:1"), parse("127.0.0.2:1"));
        assert_eq!(by_turns(&[a, b, c, d, e]), [a, d, b, e, c]);
        assert_eq!(by_turns(&[d, a, b]), [d, a, b]);
        assert_eq!(by_turns(&[]), []);
    }
}
