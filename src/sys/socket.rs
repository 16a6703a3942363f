//! `accept4(2)` with flags that `std` does not set, `read(2)` into uninitialised memory, `send(2)`, and socket options
//! that nix lacks.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrLike, SockaddrStorage};

use super::call::{Sysno, result, syscall};

/// The address given to clients of a Unix socket: this machine, and no port.
const HERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// Accepts a pending connection. The new socket is non-blocking from the start, which saves a system call for each
/// connection.
///
/// # Errors
/// As accept(2), and where the address is of a family other than IPv4, IPv6 and Unix.
pub fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    // SAFETY: all-zero bytes are a value of this plain C structure.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the address and its length are those of `storage`, which outlives the call.
    let fd = result(unsafe {
        syscall!(
            Sysno::accept4,
            listener.as_raw_fd(),
            &raw mut storage,
            &raw mut length,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC
        )
    })?;
    // SAFETY: the descriptor is new, and nobody else has it.
    let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
    // SAFETY: the kernel has filled `storage` with an address of `length` bytes.
    let address = unsafe { SockaddrStorage::from_raw((&raw const storage).cast(), Some(length)) };
    let remote = address.and_then(|address| {
        let v4 = address
            .as_sockaddr_in()
            .map(|v4| SocketAddr::V4((*v4).into()));
        v4.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|v6| SocketAddr::V6((*v6).into()))
        })
    });
    let remote = remote.or_else(|| {
        let family = libc::c_int::from(storage.ss_family);
        (family == libc::AF_UNIX).then_some(HERE)
    });
    remote
        .map(|remote| (stream, remote))
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// The round trip to the other end of a TCP connection, smoothed, as the kernel has it.
///
/// # Errors
/// As getsockopt(2).
pub fn round_trip(socket: &impl AsFd) -> io::Result<Duration> {
    // SAFETY: all-zero bytes are a value of this plain C structure.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the structure and its length outlive the call, which writes no more than this length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(Duration::from_micros(info.tcpi_rtt.into()))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Limits the unsent data in the socket's send buffer (`TCP_NOTSENT_LOWAT`): with more than that it does not poll
/// writable.
///
/// # Errors
/// Where the kernel does not support the option.
pub fn set_unsent_limit(socket: &impl AsFd, bytes: u32) -> io::Result<()> {
    let value = &raw const bytes;
    let length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the option takes an integer of this size, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            value.cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads once, without clearing the buffer first. Returns what was read; nothing at the end of input.
///
/// # Errors
/// As read(2).
#[inline(always)]
pub fn read<'a>(
    from: BorrowedFd<'_>,
    buffer: &'a mut [MaybeUninit<u8>],
) -> Result<&'a [u8], Errno> {
    // SAFETY: there is room for so many bytes, which need not be initialised to be written.
    let n = result(unsafe {
        syscall!(
            Sysno::read,
            from.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len()
        )
    })?;
    // SAFETY: the first `n` bytes are initialised now.
    Ok(unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), n) })
}

/// Sends as many of these bytes as the socket takes. A closed connection is an error, not a SIGPIPE.
///
/// # Errors
/// As send(2).
#[inline(always)]
pub fn send(to: BorrowedFd<'_>, bytes: &[u8], flags: MsgFlags) -> Result<usize, Errno> {
    let flags = flags | MsgFlags::MSG_NOSIGNAL;
    // SAFETY: the bytes outlive the call, which only reads them; it is not told of any address.
    result(unsafe {
        syscall!(
            Sysno::sendto,
            to.as_raw_fd(),
            bytes.as_ptr(),
            bytes.len(),
            flags.bits(),
            0,
            0
        )
    })
}
