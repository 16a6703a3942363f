//! Refusing a connection: cheaply, without blocking, and so that the client sees a clean end.
//!
//! The client gets an error message, if the protocol has one, and the connection is half-closed. Closing it right away
//! would reset it as soon as the client's request arrives, and the client would never see the message. So the socket is
//! kept open for a moment, unattended, and what has arrived is discarded at the end.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};

use crate::sys::socket::read;

/// How long a connection is kept.
const LINGER: Duration = Duration::from_millis(500);
/// How many are kept open; beyond that the oldest is closed early.
const MOST: usize = 32;
/// Bytes discarded by one read, and the number of reads.
const PART: usize = 4096;
const PARTS: usize = 16;
/// Nothing is to be done.
const NEVER: Duration = Duration::from_secs(3600);

/// Connections that are being refused.
#[derive(Debug, Default)]
pub struct Refusals(VecDeque<(Instant, TcpStream)>);

impl Refusals {
    /// Refuses a connection, whose socket must be non-blocking.
    pub fn refuse(&mut self, stream: TcpStream, message: &[u8]) {
        if !message.is_empty() {
            // An empty socket takes so few bytes at once, or its client is gone.
            let _ = send(stream.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL);
        }
        let _ = shutdown(stream.as_raw_fd(), Shutdown::Write);
        if self.0.len() == MOST {
            self.close_first();
        }
        self.0.push_back((Instant::now() + LINGER, stream));
    }

    /// Closes those whose time has come; returns when the next is due.
    pub fn tick(&mut self) -> Duration {
        while let Some((end, _)) = self.0.front() {
            let left = end.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return left;
            }
            self.close_first();
        }
        NEVER
    }

    /// Closes all of them.
    pub fn close_all(&mut self) {
        while !self.0.is_empty() {
            self.close_first();
        }
    }

    /// Not inlined: it is rare, and in a loop that forks its buffer would spread the loop's variables over more pages
    /// of stack, each of which is copied for every child.
    #[cold]
    #[inline(never)]
    fn close_first(&mut self) {
        if let Some((_, stream)) = self.0.pop_front() {
            let mut buffer = [MaybeUninit::uninit(); PART];
            let mut more =
                || read(stream.as_fd(), &mut buffer).is_ok_and(|input| !input.is_empty());
            let _ = (0..PARTS).all(|_| more());
        }
    }
}
