//! Packet pipes: how a child reports to its parent.
//!
//! `pipe2(O_DIRECT)` keeps message boundaries (see [`super::record`]). All children share one pipe, and the parent
//! cannot tell which of them wrote a record; where that matters, use [`super::letters`].

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read};

use super::record::WhenFull;
pub use super::record::{MAX_RECORD, Record, Sender};

/// How many packets a pipe is asked to hold before its writers wait (the system may grant fewer).
const PACKETS: i32 = 256;

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
    /// A malformed packet.
    Garbage,
    /// Nothing now.
    Empty,
    /// Nothing ever again: no writer is left.
    Closed,
}

/// Makes a packet pipe. Its sender waits while the pipe is full.
///
/// # Errors
/// Where no descriptor is left.
pub fn packet_pipe<R: Record>() -> io::Result<(Sender<R>, Receiver<R>)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // Best effort: an unprivileged user has a quota of pipe buffers, and fewer only make writers wait.
    let _ = fcntl(&reader, FcntlArg::F_SETPIPE_SZ(PACKETS * 4096));
    Ok((
        Sender::new(writer, WhenFull::Wait),
        Receiver {
            fd: reader,
            record: PhantomData,
        },
    ))
}

/// Makes a packet pipe whose sender never waits: a record for which the pipe has no room is lost.
///
/// # Errors
/// As [`packet_pipe`].
pub fn lossy_packet_pipe<R: Record>() -> io::Result<(Sender<R>, Receiver<R>)> {
    let (sender, receiver) = packet_pipe()?;
    fcntl(
        &sender,
        FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_DIRECT),
    )?;
    Ok((Sender::new(sender.fd, WhenFull::Fail), receiver))
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
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Received::Empty),
            Err(error) => Err(error.into()),
        }
    }
}

impl<R> AsFd for Receiver<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Byte;
    use super::*;
    use nix::unistd::write;

    #[test]
    fn a_short_or_long_packet_does_not_shift_the_next_one() {
        let (sender, receiver) = packet_pipe::<Byte>().expect("a pipe");
        assert_eq!(receiver.receive().expect("a read"), Received::Empty);
        sender.send(&Byte(b'a')).expect("a write");
        write(&sender, b"rogue").expect("a write");
        sender.send(&Byte(b'b')).expect("a write");
        for expected in [
            Received::Record(Byte(b'a')),
            Received::Garbage,
            Received::Record(Byte(b'b')),
            Received::Empty,
        ] {
            assert_eq!(receiver.receive().expect("a read"), expected);
        }
        drop(sender);
        assert_eq!(receiver.receive().expect("a read"), Received::Closed);
    }

    #[test]
    fn a_lossy_pipe_that_is_full_loses_records_instead_of_waiting() {
        let (sender, receiver) = lossy_packet_pipe::<Byte>().expect("a pipe");
        let sent = (0..=PACKETS).take_while(|_| sender.send(&Byte(b'a')).is_ok());
        assert!(sent.count() <= PACKETS as usize);
        assert_eq!(
            receiver.receive().expect("a read"),
            Received::Record(Byte(b'a'))
        );
        sender.send(&Byte(b'b')).expect("there is room again");
    }
}
