//! One client: connects, asks, reads the reply to its end, and again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind, connect, recv,
    send, setsockopt, socket, sockopt,
};

use crate::compare::traffic::{Reply, Traffic};

/// What a reply may have at most, in bytes.
pub const BUFFER: usize = 64 << 10;

/// A client with an open connection.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    /// Which request is under way.
    number: u64,
    /// How much of the request was sent.
    sent: usize,
    /// What was received of the reply; in order, since replies are small it is kept in one piece.
    received: Vec<u8>,
    /// When the latency of the request under way began to count.
    pub since: Instant,
}

/// How far a client got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The socket has to become writable.
    WantsRoom,
    /// The socket has to become readable.
    WantsReply,
    /// The reply is complete.
    Answered,
    /// The connection is of no use any more.
    Broken,
}

impl Client {
    /// Begins to connect, as the `number`th connection. One source address has fewer ports than a fast server can
    /// use up within the minute that a closed connection keeps its port; 127/8 has 16 million of them.
    ///
    /// # Errors
    /// Where the system refuses a socket or a port.
    pub fn connect(server: SocketAddr, number: u64) -> io::Result<Self> {
        const PER_ADDRESS: u64 = 16_384;
        let since = Instant::now();
        let socket = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let turn = u8::try_from(number / PER_ADDRESS % 250).unwrap_or(0);
        let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 1 + turn), 0);
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        bind(socket.as_raw_fd(), &SockaddrIn::from(source))?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(server)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self {
            socket,
            number,
            sent: 0,
            received: Vec::new(),
            since,
        })
    }

    /// Begins the next request on the same connection.
    pub fn next(&mut self) {
        self.number += 1;
        self.sent = 0;
        self.received.clear();
        self.since = Instant::now();
    }

    /// Sends what is left of the request, as far as that is possible now.
    pub fn send(&mut self, traffic: &Traffic) -> Progress {
        let request = traffic.request(self.number);
        while self.sent < request.len() {
            let rest = &request[self.sent..];
            match send(self.socket.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
                Ok(n) => self.sent += n,
                // ENOTCONN: the connection is not there yet.
                Err(Errno::EAGAIN | Errno::ENOTCONN) => return Progress::WantsRoom,
                Err(Errno::EINTR) => {}
                Err(_) => return Progress::Broken,
            }
        }
        Progress::WantsReply
    }

    /// Follows up an event of the socket.
    pub fn advance(&mut self, traffic: &Traffic, buffer: &mut [u8]) -> Progress {
        match self.send(traffic) {
            Progress::WantsReply => self.receive(traffic, buffer),
            other => other,
        }
    }

    fn receive(&mut self, traffic: &Traffic, buffer: &mut [u8]) -> Progress {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(0) => return Progress::Broken,
                Ok(n) => match self.judge(traffic, &buffer[..n]) {
                    Reply::Complete => return Progress::Answered,
                    Reply::Wrong => return Progress::Broken,
                    Reply::Partial => {}
                },
                Err(Errno::EAGAIN) => return Progress::WantsReply,
                Err(Errno::EINTR) => {}
                Err(_) => return Progress::Broken,
            }
        }
    }

    /// Most replies come whole: they need no copy.
    fn judge(&mut self, traffic: &Traffic, bytes: &[u8]) -> Reply {
        if self.received.is_empty() {
            let reply = traffic.judge(bytes);
            if reply == Reply::Partial {
                self.received.extend_from_slice(bytes);
            }
            reply
        } else {
            self.received.extend_from_slice(bytes);
            traffic.judge(&self.received)
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
