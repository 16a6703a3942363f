//! `poll(2)` with a deadline.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::time::TimeSpec;

use super::call::{Sysno, result, syscall};
use super::signals::blocked_while_waiting;

/// The size of the kernel's signal set, in bytes.
const SIGNAL_SET: usize = 8;

/// Waits until a descriptor is ready or `timeout` is over; returns which are ready, in order. A signal ends the wait
/// early, with none ready. Errors and hang-ups count as ready; the read or write that follows reports them.
///
/// # Errors
/// Where poll(2) fails other than by a signal.
pub fn wait_readable(
    fds: &[Option<BorrowedFd<'_>>],
    timeout: Option<Duration>,
) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .flatten()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    let timeout = timeout.map_or(PollTimeout::NONE, milliseconds);
    match nix::poll::poll(&mut polled, timeout) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(vec![false; fds.len()]),
        Err(error) => return Err(error.into()),
    }
    let mut ready = polled.iter().map(|fd| fd.any().unwrap_or(true));
    Ok(fds
        .iter()
        .map(|fd| fd.is_some() && ready.next().unwrap_or(false))
        .collect())
}

/// Waits until a descriptor is ready to be written to, or for the deadline; returns which are ready, in order.
///
/// # Errors
/// Where poll(2) fails other than by a signal.
pub fn wait_writable(fds: &[BorrowedFd<'_>], deadline: Instant) -> io::Result<Vec<bool>> {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLOUT))
        .collect();
    match nix::poll::poll(&mut polled, milliseconds(left)) {
        Ok(_) => Ok(polled.iter().map(|fd| fd.any().unwrap_or(true)).collect()),
        Err(Errno::EINTR) => Ok(vec![false; fds.len()]),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the descriptor has one of `events`, until `wake` is readable, or for the deadline.
///
/// # Errors
/// Where poll(2) fails other than by a signal.
pub fn wait_or_wake(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    wake: BorrowedFd<'_>,
    deadline: Instant,
) -> io::Result<Woken> {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut polled = [
        PollFd::new(fd, events),
        PollFd::new(wake, PollFlags::POLLIN),
    ];
    match nix::poll::poll(&mut polled, milliseconds(left)) {
        Ok(0) => Ok(Woken::TimedOut),
        Ok(_) if polled[1].any().unwrap_or(true) => Ok(Woken::Interrupted),
        Ok(_) => Ok(Woken::Ready),
        Err(Errno::EINTR) => Ok(Woken::Interrupted),
        Err(error) => Err(error.into()),
    }
}

/// The most that [`wait_few`] waits for.
pub const FEW: usize = 64;

/// As [`wait_readable`], with a mandatory timeout and without allocating, for loops that fork: there every page that is
/// written to has to be copied. Returns a bit for each of at most [`FEW`] descriptors.
///
/// # Errors
/// Where poll(2) fails other than by a signal.
pub fn wait_few<'a>(
    fds: impl Iterator<Item = Option<BorrowedFd<'a>>>,
    timeout: Duration,
) -> io::Result<u64> {
    let nothing = libc::pollfd {
        // A negative descriptor is ignored.
        fd: -1,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut polled = [nothing; FEW];
    let mut count = 0;
    for (polled, fd) in polled.iter_mut().zip(fds) {
        polled.fd = fd.map_or(-1, |fd| fd.as_raw_fd());
        count += 1;
    }
    // SAFETY: `count` of the structures are initialised, and the descriptors are borrowed.
    let result = unsafe {
        libc::poll(
            polled.as_mut_ptr(),
            count,
            libc::c_int::from(milliseconds(timeout)),
        )
    };
    match Errno::result(result) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(0),
        Err(error) => return Err(error.into()),
    }
    let ready = (0..).zip(&polled).filter(|(_, fd)| fd.revents != 0);
    Ok(ready.fold(0, |bits, (index, _): (u32, _)| bits | 1 << index))
}

/// Whether the other end of a connection is closed.
///
/// # Errors
/// As poll(2).
pub fn hung_up(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut polled = [PollFd::new(fd, PollFlags::empty())];
    nix::poll::poll(&mut polled, PollTimeout::ZERO)?;
    Ok(polled[0].any().unwrap_or(true))
}

/// Rounds up, so that the loop does not wake just before a deadline and spin.
pub(super) fn milliseconds(timeout: Duration) -> PollTimeout {
    let milliseconds = timeout.as_micros().div_ceil(1000);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}

/// How a wait for one descriptor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// It is ready, or in an error state.
    Ready,
    /// The deadline has passed.
    TimedOut,
    /// A signal arrived, or the waiter was woken in another way.
    Interrupted,
}

/// Waits for one descriptor. This is the only place where a child that serves connections can receive SIGTERM.
///
/// # Errors
/// Where poll(2) fails other than by a signal.
#[inline(always)]
pub fn wait_interruptibly(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    timeout: Duration,
) -> io::Result<Woken> {
    let mut polled = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: events.bits(),
        revents: 0,
    };
    let mut timeout = *TimeSpec::from_duration(timeout).as_ref();
    let blocked = blocked_while_waiting().as_ref();
    // SAFETY: descriptor, time and set outlive the call; the system's set is a prefix of the C library's.
    let ready = result(unsafe {
        syscall!(
            Sysno::ppoll,
            &raw mut polled,
            1,
            &raw mut timeout,
            std::ptr::from_ref(blocked),
            SIGNAL_SET
        )
    });
    match ready {
        Ok(0) => Ok(Woken::TimedOut),
        Ok(_) => Ok(Woken::Ready),
        Err(Errno::EINTR) => Ok(Woken::Interrupted),
        Err(error) => Err(error.into()),
    }
}
