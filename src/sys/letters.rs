//! Letters: how a child reports to its parent, with a sender that the kernel vouches for.
//!
//! All children share one end of a socket pair (`SOCK_SEQPACKET`), which keeps message boundaries (see
//! [`super::record`]). The kernel stamps each letter with the pid of the process that sent it (`SO_PASSCRED`), so that
//! no child can report in the name of another. Only root could forge the stamp, with sendmsg(2), which is on no
//! allow-list of [`crate::confine::seccomp`].
//!
//! Without the stamp a pipe would do ([`super::pipe`]). A secret that the parent gives to each child would serve
//! instead of it, but only if it never passed through memory that the next child inherits, which no language promises.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, setsockopt, shutdown, socketpair, sockopt,
};
use nix::unistd::{Pid, dup3_raw};

use super::record::WhenFull;
pub use super::record::{MAX_RECORD, Record, Sender};

/// The parent's end, which never blocks.
#[derive(Debug)]
pub struct Receiver<R> {
    fd: OwnedFd,
    record: PhantomData<fn() -> R>,
}

/// What was in the letter box.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<R> {
    /// A record, and the process that sent it.
    Record(Pid, R),
    /// A malformed letter, and the process that sent it.
    Garbage(Pid),
    /// Nothing now.
    Empty,
    /// Nothing ever again: no sender is left, or one has shut the socket down for all.
    Closed,
}

/// Makes both ends. The sender waits while the receiver's buffer is full.
///
/// # Errors
/// Where no descriptor is left.
pub fn letters<R: Record>() -> io::Result<(Sender<R>, Receiver<R>)> {
    let (receiver, sender) = pair()?;
    Ok((
        Sender::new(sender, WhenFull::Wait),
        Receiver {
            fd: receiver,
            record: PhantomData,
        },
    ))
}

/// The receiving and the sending end.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (receiver, sender) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    setsockopt(&receiver, sockopt::PassCred, &true)?;
    // Nothing goes to the children: what one of them could read, another could take away.
    shutdown(sender.as_raw_fd(), nix::sys::socket::Shutdown::Read)?;
    Ok((receiver, sender))
}

/// Replaces a pair that was shut down by a new one under the same descriptor numbers. Children forked from now on
/// report through it; those that are already running no longer can.
///
/// # Errors
/// Where no descriptor is left.
pub fn renew<R>(sender: &Sender<R>, receiver: &Receiver<R>) -> io::Result<()> {
    let (new_receiver, new_sender) = pair()?;
    replace(&sender.fd, &new_sender)?;
    replace(&receiver.fd, &new_receiver)
}

fn replace(old: &OwnedFd, new: &OwnedFd) -> io::Result<()> {
    // SAFETY: the number stays that of an open descriptor, which stays its owner's.
    let _ =
        std::mem::ManuallyDrop::new(unsafe { dup3_raw(new, old.as_raw_fd(), OFlag::O_CLOEXEC) }?);
    Ok(())
}

impl<R: Record> Receiver<R> {
    /// Takes one letter, without waiting. It does not allocate, because it runs for every connection.
    ///
    /// # Errors
    /// Where recvmsg(2) fails.
    pub fn receive(&self) -> io::Result<Received<R>> {
        let mut bytes = [MaybeUninit::<u8>::uninit(); MAX_RECORD];
        let mut stamp = Stamp::default();
        let mut part = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: all-zero bytes are a value of this plain C structure.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut stamp).cast();
        // Room for the stamp alone: descriptors that a rogue sends along find none, and are closed.
        message.msg_controllen = size_of::<Stamp>() as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: the structure describes `bytes` and `stamp`, which outlive the call.
        let received = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, flags) };
        let length = match Errno::result(received) {
            Ok(length) => length as usize,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Received::Empty),
            Err(error) => return Err(error.into()),
        };
        let Some(pid) = stamp.pid(message.msg_controllen as usize) else {
            return Ok(Received::Closed);
        };
        // SAFETY: the system has written so many bytes, which are at most all.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), length) };
        let cut = message.msg_flags & libc::MSG_TRUNC != 0;
        let record = if cut { None } else { R::decode(bytes) };
        Ok(record.map_or(Received::Garbage(pid), |record| {
            Received::Record(pid, record)
        }))
    }
}

/// The control message with which the system says who sent a letter.
#[repr(C)]
struct Stamp {
    header: libc::cmsghdr,
    sender: libc::ucred,
}

impl Default for Stamp {
    fn default() -> Self {
        // SAFETY: all-zero bytes are a value of these plain C structures.
        unsafe { std::mem::zeroed() }
    }
}

impl Stamp {
    /// The sender, where so many bytes of control messages hold one.
    fn pid(&self, length: usize) -> Option<Pid> {
        let is_stamp = length >= size_of::<libc::cmsghdr>() + size_of::<libc::ucred>()
            && self.header.cmsg_level == libc::SOL_SOCKET
            && self.header.cmsg_type == libc::SCM_CREDENTIALS;
        is_stamp.then(|| Pid::from_raw(self.sender.pid))
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
    fn each_letter_is_stamped_and_a_rogue_one_does_not_shift_the_next() {
        let (sender, receiver) = letters::<Byte>().expect("a pair");
        let own = Pid::this();
        assert_eq!(receiver.receive().expect("a read"), Received::Empty);
        sender.send(&Byte(b'a')).expect("a write");
        write(&sender.fd, b"rogue").expect("a write");
        write(&sender.fd, &[b'x'; 2 * MAX_RECORD]).expect("a write");
        // An empty letter is no end.
        write(&sender.fd, b"").expect("a write");
        sender.send(&Byte(b'b')).expect("a write");
        for expected in [
            Received::Record(own, Byte(b'a')),
            Received::Garbage(own),
            Received::Garbage(own),
            Received::Garbage(own),
            Received::Record(own, Byte(b'b')),
            Received::Empty,
        ] {
            assert_eq!(receiver.receive().expect("a read"), expected);
        }
        drop(sender);
        assert_eq!(receiver.receive().expect("a read"), Received::Closed);
    }

    #[test]
    fn a_pair_that_a_rogue_shut_down_is_renewed_with_the_same_descriptors() {
        let (sender, receiver) = letters::<Byte>().expect("a pair");
        shutdown(sender.fd.as_raw_fd(), nix::sys::socket::Shutdown::Both).expect("a shutdown");
        assert!(sender.send(&Byte(b'a')).is_err());
        assert_eq!(receiver.receive().expect("a read"), Received::Closed);
        let before = (sender.fd.as_raw_fd(), receiver.fd.as_raw_fd());
        renew(&sender, &receiver).expect("a new pair");
        assert_eq!(before, (sender.fd.as_raw_fd(), receiver.fd.as_raw_fd()));
        sender.send(&Byte(b'b')).expect("a write");
        assert_eq!(
            receiver.receive().expect("a read"),
            Received::Record(Pid::this(), Byte(b'b'))
        );
    }
}
