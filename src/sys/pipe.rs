//! Pipes of packets: how a child tells its parent something.
//!
//! `pipe2(O_DIRECT)` keeps packets apart, so that a rogue child's short write cannot shift the framing of the next
//! one's: one record per write, one record per read. All children share one pipe.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read, write};

/// The largest record, in bytes: well below `PIPE_BUF`, up to which a write is not split.
pub const MAX_RECORD: usize = 512;

/// How many packets a pipe is asked to hold before its writers wait (the system may give fewer).
const PACKETS: i32 = 256;

/// Something that fits into one packet.
pub trait Record: Sized {
    /// Appends the record's bytes, at most [`MAX_RECORD`].
    fn encode(&self, bytes: &mut Vec<u8>);
    /// Reads a record; nothing where the bytes are none. The writer is not trusted.
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

/// The children's end.
#[derive(Debug)]
pub struct Sender<R> {
    fd: OwnedFd,
    record: PhantomData<fn(R)>,
}

/// The parent's end, which never blocks.
#[derive(Debug)]
pub struct Receiver<R> {
    fd: OwnedFd,
    record: PhantomData<fn() -> R>,
}

/// What a read of the pipe found.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<R> {
    /// A record.
    Record(R),
    /// A packet that is none.
    Garbage,
    /// Nothing now.
    Empty,
    /// Nothing ever again: no writer is left.
    Closed,
}

/// Makes a pipe of packets.
///
/// # Errors
/// Where the system has no descriptor left.
pub fn packet_pipe<R: Record>() -> io::Result<(Sender<R>, Receiver<R>)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // Best effort: an unprivileged user has a share of pipe buffers, and fewer only make writers wait.
    let _ = fcntl(&reader, FcntlArg::F_SETPIPE_SZ(PACKETS * 4096));
    Ok((
        Sender {
            fd: writer,
            record: PhantomData,
        },
        Receiver {
            fd: reader,
            record: PhantomData,
        },
    ))
}

impl<R: Record> Sender<R> {
    /// Sends one record; waits while the pipe is full.
    ///
    /// # Errors
    /// Where the parent is gone.
    pub fn send(&self, record: &R) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(64);
        record.encode(&mut bytes);
        debug_assert!(bytes.len() <= MAX_RECORD, "a record fits into a packet");
        loop {
            match write(&self.fd, &bytes) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<R> Sender<R> {
    /// From now on, sends that would have to wait are given up: what is sent may get lost.
    ///
    /// # Errors
    /// As fcntl(2).
    pub fn never_wait(&self) -> io::Result<()> {
        fcntl(
            &self.fd,
            FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_DIRECT),
        )?;
        Ok(())
    }
}

impl<R: Record> Receiver<R> {
    /// Takes one record, without waiting.
    ///
    /// # Errors
    /// Where read(2) fails.
    pub fn receive(&self) -> io::Result<Received<R>> {
        let mut bytes = [0; MAX_RECORD];
        match read(&self.fd, &mut bytes) {
            Ok(0) => Ok(Received::Closed),
            Ok(n) => Ok(R::decode(&bytes[..n]).map_or(Received::Garbage, Received::Record)),
            Err(Errno::EAGAIN) => Ok(Received::Empty),
            Err(Errno::EINTR) => Ok(Received::Empty),
            Err(error) => Err(error.into()),
        }
    }
}

impl<R> AsFd for Sender<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<R> AsFd for Receiver<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Letter(u8);

    impl Record for Letter {
        fn encode(&self, bytes: &mut Vec<u8>) {
            bytes.push(self.0);
        }

        fn decode(bytes: &[u8]) -> Option<Self> {
            let [letter] = bytes else { return None };
            Some(Self(*letter))
        }
    }

    #[test]
    fn a_short_or_long_packet_does_not_shift_the_next_one() {
        let (sender, receiver) = packet_pipe::<Letter>().expect("a pipe");
        assert_eq!(receiver.receive().expect("a read"), Received::Empty);
        sender.send(&Letter(b'a')).expect("a write");
        write(&sender.fd, b"rogue").expect("a write");
        sender.send(&Letter(b'b')).expect("a write");
        assert_eq!(
            receiver.receive().expect("a read"),
            Received::Record(Letter(b'a'))
        );
        assert_eq!(receiver.receive().expect("a read"), Received::Garbage);
        assert_eq!(
            receiver.receive().expect("a read"),
            Received::Record(Letter(b'b'))
        );
        drop(sender);
        assert_eq!(receiver.receive().expect("a read"), Received::Closed);
    }
}
