//! Socket activation: descriptors passed by a service manager (sd_listen_fds(3)).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Takes the sockets that the service manager has passed to this process, if any; call it once. Programs that this
/// process executes do not inherit them.
///
/// # Errors
/// Where the variables `LISTEN_PID` and `LISTEN_FDS` make no sense, or name what is not open.
pub fn sockets() -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    // Looks whether they are open, and that they are meant for this process and not for one that it was started by.
    let numbers = sd_notify::listen_fds()?;
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    // SAFETY: they are open, were opened by nobody in this process, and are taken once.
    let owned = |number| unsafe { OwnedFd::from_raw_fd(number) };
    Ok(numbers.map(owned).collect())
}
