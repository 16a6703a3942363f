//! Records, and the end that sends them to the parent: the common half of [`super::pipe`] and [`super::letters`].
//!
//! Both keep message boundaries, one record per write and one per read, so that a rogue child's short write cannot
//! shift the framing of the next one's.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

/// The largest record, in bytes: well below `PIPE_BUF`, up to which a write is not split.
pub const MAX_RECORD: usize = 512;

/// A message that fits into one packet.
pub trait Record: Sized {
    /// Appends the record's bytes, at most [`MAX_RECORD`].
    fn encode(&self, bytes: &mut Vec<u8>);
    /// Decodes a record; `None` where the bytes are malformed. The writer is not trusted.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// For sessions that have nothing to report.
impl Record for std::convert::Infallible {
    fn encode(&self, _: &mut Vec<u8>) {
        match *self {}
    }

    fn decode(_: &[u8]) -> Option<Self> {
        None
    }
}

/// The sending end, which all children share.
#[derive(Debug)]
pub struct Sender<R> {
    pub(super) fd: OwnedFd,
    when_full: WhenFull,
    record: PhantomData<fn(R)>,
}

/// What a sender does while the receiver has no room for another record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenFull {
    Wait,
    /// The record is lost.
    Fail,
}

impl<R> Sender<R> {
    pub(super) fn new(fd: OwnedFd, when_full: WhenFull) -> Self {
        Self {
            fd,
            when_full,
            record: PhantomData,
        }
    }
}

impl<R: Record> Sender<R> {
    /// Sends one record. Where there is no room it waits, unless the sender was made never to.
    ///
    /// # Errors
    /// Where the parent is gone, and `WouldBlock` where there is no room and the sender never waits.
    pub fn send(&self, record: &R) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(64);
        record.encode(&mut bytes);
        debug_assert!(bytes.len() <= MAX_RECORD, "a record fits into a packet");
        loop {
            match write(&self.fd, &bytes) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                // A sibling shares the open file description, and may have made it non-blocking.
                Err(Errno::EAGAIN) if self.when_full == WhenFull::Wait => {
                    let mut room = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
                    poll(&mut room, PollTimeout::NONE)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<R> AsFd for Sender<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A record for the tests of both transports.
#[cfg(test)]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Byte(pub u8);

#[cfg(test)]
impl Record for Byte {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.0);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let [byte] = bytes else { return None };
        Some(Self(*byte))
    }
}
