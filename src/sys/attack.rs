//! What a compromised process would try: for the tests, in builds with the feature `faults` only.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::unistd::getppid;

/// Read-only memory of this process: its address and length.
static ONLY_READ: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// A port at which nobody listens, and to which no role may connect.
const ELSEWHERE: u16 = 1;
/// How many descriptors are searched for the report socket.
const DESCRIPTORS: i32 = 64;

/// Registers read-only memory.
pub fn note(start: usize, bytes: usize) {
    let mut noted = ONLY_READ.lock().unwrap_or_else(PoisonError::into_inner);
    noted.push((start, bytes));
}

/// Tries an attack, and logs its result, if the process survives. An unknown name is none.
pub fn perform(place: &str, deed: &str) {
    let result = match deed {
        "open" => File::open("/etc/passwd").map(drop),
        "create" => File::create("/tmp/cascade-was-here").map(drop),
        "exec" => exec(c"/bin/true"),
        "connect" => TcpStream::connect(("127.0.0.1", ELSEWHERE)).map(drop),
        "kill" => nix::sys::signal::kill(getppid(), None).map_err(io::Error::from),
        "write" => write(),
        "mprotect" => mprotect().and_then(|()| write()),
        "remove" => remove(),
        "forge" => forge(),
        _ => return,
    };
    match result {
        Ok(()) => log::error!("attack {deed} at {place}: done"),
        Err(error) => log::error!("attack {deed} at {place}: {error}"),
    }
}

fn exec(program: &CStr) -> io::Result<()> {
    nix::unistd::execve(program, &[program], &[c""; 0])?;
    Ok(())
}

/// The first memory that was registered.
fn victim() -> io::Result<(usize, usize)> {
    let noted = ONLY_READ.lock().unwrap_or_else(PoisonError::into_inner);
    noted.first().copied().ok_or(io::ErrorKind::NotFound.into())
}

fn write() -> io::Result<()> {
    let (start, _) = victim()?;
    // SAFETY: it is not: that is the point. The address is mapped, and holds integers.
    unsafe { std::ptr::write_volatile(start as *mut u64, 0x6b72_6f77) };
    Ok(())
}

fn mprotect() -> io::Result<()> {
    let (start, bytes) = victim()?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the memory stays mapped; what may be done with it changes.
    Errno::result(unsafe { libc::mprotect(start as *mut _, bytes, protection) })?;
    Ok(())
}

/// Truncates the memory behind the mapping.
fn remove() -> io::Result<()> {
    let (start, bytes) = victim()?;
    // SAFETY: as above.
    Errno::result(unsafe { libc::madvise(start as *mut _, bytes, libc::MADV_REMOVE) })?;
    Ok(())
}

/// Sends a letter with another process's pid, as root may.
fn forge() -> io::Result<()> {
    #[repr(C)]
    struct Stamp {
        header: libc::cmsghdr,
        sender: libc::ucred,
    }
    let of_packets = |fd: &i32| {
        let (mut kind, mut size) = (0i32, size_of::<i32>() as libc::socklen_t);
        // SAFETY: the option is an integer of this size.
        let result = unsafe {
            libc::getsockopt(
                *fd,
                libc::SOL_SOCKET,
                libc::SO_TYPE,
                (&raw mut kind).cast(),
                &raw mut size,
            )
        };
        result == 0 && kind == libc::SOCK_SEQPACKET
    };
    let socket = (3..DESCRIPTORS).find(of_packets);
    let socket = socket.ok_or(io::ErrorKind::NotFound)?;
    let mut text = *b"forged";
    let mut part = libc::iovec {
        iov_base: text.as_mut_ptr().cast(),
        iov_len: text.len(),
    };
    // SAFETY: all-zero bytes are values of these plain C structures.
    let (mut message, mut stamp): (libc::msghdr, Stamp) = unsafe { std::mem::zeroed() };
    stamp.header.cmsg_len = size_of::<Stamp>() as _;
    stamp.header.cmsg_level = libc::SOL_SOCKET;
    stamp.header.cmsg_type = libc::SCM_CREDENTIALS;
    stamp.sender.pid = getppid().as_raw();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut stamp).cast();
    message.msg_controllen = size_of::<Stamp>() as _;
    // SAFETY: the message and all that it points at outlive the call.
    Errno::result(unsafe { libc::sendmsg(socket, &raw const message, 0) })?;
    Ok(())
}
