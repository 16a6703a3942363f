//! `epoll_pwait(2)`, which nix does not have.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use nix::sys::signal::SigSet;

use super::poll::milliseconds;

/// Waits, with only these signals blocked, until a descriptor is ready; returns its data. Returns `None` where a signal
/// or the timeout ended the wait.
///
/// # Errors
/// Where epoll_pwait(2) fails other than by a signal.
pub fn wait_with_mask(
    epoll: &Epoll,
    blocked: &SigSet,
    timeout: Duration,
) -> io::Result<Option<u64>> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: there is room for one event, and the mask outlives the call.
    let ready = unsafe {
        libc::epoll_pwait(
            epoll.0.as_raw_fd(),
            &raw mut event,
            1,
            milliseconds(timeout).into(),
            blocked.as_ref(),
        )
    };
    match Errno::result(ready) {
        Ok(ready) => Ok((ready > 0).then_some(event.u64)),
        Err(Errno::EINTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
