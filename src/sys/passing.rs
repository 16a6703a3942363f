//! Passing descriptors to another process over a Unix socket (`SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 128;
/// The most descriptors in one message.
pub const MAX_DESCRIPTORS: usize = 8;

/// A message and its descriptors.
#[derive(Debug)]
pub struct Passed {
    /// The message.
    pub bytes: Vec<u8>,
    /// The descriptors, in the order in which they were sent.
    pub descriptors: Vec<OwnedFd>,
}

/// A socket pair that keeps message boundaries and never blocks.
///
/// # Errors
/// Where the system has no descriptor left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        flags,
    )?)
}

/// Sends a message with these descriptors; the receiver gets duplicates.
///
/// # Errors
/// `WouldBlock` where the buffer is full; and where the other end is closed.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    debug_assert!(bytes.len() <= MAX_MESSAGE && descriptors.len() <= MAX_DESCRIPTORS);
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[] } else { &rights[..] };
    let parts = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &parts, control, flags, None)?;
    Ok(())
}

/// Receives one message, if there is one; `None` also once the other end is closed.
///
/// # Errors
/// As recvmsg(2), and where a message was too long.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Passed>> {
    receive_with(socket, MsgFlags::empty())
}

/// Looks at one message, if there is one, which stays there; its descriptors are copies.
///
/// # Errors
/// As [`receive`].
pub fn peek(socket: BorrowedFd<'_>) -> io::Result<Option<Passed>> {
    receive_with(socket, MsgFlags::MSG_PEEK)
}

/// How many bytes all messages have that wait there.
///
/// # Errors
/// As ioctl(2).
pub fn waiting(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD (SIOCINQ to a socket) writes one integer, to where there is one.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

fn receive_with(socket: BorrowedFd<'_>, how: MsgFlags) -> io::Result<Option<Passed>> {
    let mut bytes = [0; MAX_MESSAGE];
    let mut control = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | how;
    let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
        Ok(message) => message,
        Err(Errno::EAGAIN) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the system has just made these descriptors for this process, and nobody else has them.
            let owned = |number| unsafe { OwnedFd::from_raw_fd(number) };
            descriptors.extend(numbers.into_iter().map(owned));
        }
    }
    let cut = MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC;
    if message.flags.intersects(cut) {
        return Err(io::Error::other("a message with descriptors is too long"));
    }
    let length = message.bytes;
    // At the end there is an empty message.
    Ok((length > 0).then(|| Passed {
        bytes: bytes[..length].to_vec(),
        descriptors,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_arrives_with_its_message() {
        let (one, other) = pair().expect("a pair of sockets");
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        assert!(receive(other.as_fd()).expect("nothing yet").is_none());
        send(one.as_fd(), b"take this", &[writer.as_fd()]).expect("there is room");
        send(one.as_fd(), b"and this", &[]).expect("there is room");
        drop(writer);
        let passed = receive(other.as_fd()).expect("a message").expect("one");
        assert_eq!(passed.bytes, b"take this");
        for descriptor in passed.descriptors {
            File::from(descriptor)
                .write_all(b"hello")
                .expect("it is a pipe");
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        assert_eq!(text, "hello");
        let passed = receive(other.as_fd()).expect("a message").expect("one");
        assert_eq!(
            (&passed.bytes[..], passed.descriptors.len()),
            (&b"and this"[..], 0)
        );
        drop(one);
        assert!(receive(other.as_fd()).expect("the end").is_none());
    }
}
