//! How a connection is closed that is not served: cheaply, without waiting, and so that its client sees a clean end.
//!
//! The client is told, where the protocol has words for it, and the connection is half-closed. To close it at once
//! would reset it as soon as the client's request arrives, and the client would not know what happened; so it is kept
//! for a moment, in which nothing is done about it, and what arrived is thrown away at the end.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};

use crate::sys::socket::read;

/// How long a connection is kept.
const LINGER: Duration = Duration::from_millis(500);
/// How many are kept; beyond that the oldest is closed earlier.
const MOST: usize = 32;
/// What is thrown away at once, and how often.
const PART: usize = 4096;
const PARTS: usize = 16;
/// Nothing is to be done.
const NEVER: Duration = Duration::from_secs(3600);

/// The connections that are being refused.
#[derive(Debug, Default)]
pub struct Refusals(VecDeque<(Instant, TcpStream)>);

impl Refusals {
    /// Refuses a connection, which must not block.
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

    /// Closes those whose time has come; says when the next one's will.
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

    /// Seldom called, and not to be a part of a loop that forks: there its buffer would only spread what that has on the
    /// stack over more pages, each of which is copied for each child.
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
