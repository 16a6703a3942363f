//! `poll(2)` with a deadline.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, ppoll};
use nix::sys::signal::SigSet;
use nix::sys::time::TimeSpec;

/// Waits until a descriptor is ready or `timeout` is over; says which are ready, in order. A signal ends the wait
/// early, with none ready. Errors and hang-ups count as ready: the read or write that follows tells.
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

/// Rounds up: a deadline is never missed by waking too early and spinning.
fn milliseconds(timeout: Duration) -> PollTimeout {
    let milliseconds = timeout.as_micros().div_ceil(1000);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}

/// How a wait for one descriptor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// It is ready, or failed.
    Ready,
    /// The deadline has passed.
    TimedOut,
    /// A signal came.
    Interrupted,
}

/// Waits for one descriptor with no signal blocked, which is the only moment at which a child that serves a
/// connection takes a TERM.
///
/// # Errors
/// Where poll(2) fails other than by a signal.
pub fn wait_interruptibly(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    deadline: Instant,
) -> io::Result<Woken> {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut polled = [PollFd::new(fd, events)];
    match ppoll(
        &mut polled,
        Some(TimeSpec::from_duration(left)),
        Some(SigSet::empty()),
    ) {
        Ok(0) => Ok(Woken::TimedOut),
        Ok(_) => Ok(Woken::Ready),
        Err(Errno::EINTR) => Ok(Woken::Interrupted),
        Err(error) => Err(error.into()),
    }
}
