//! The first process of a container (PID 1), which is special: signals without a handler do nothing to it, not even
//! kill; and it inherits the orphans of all others, which somebody has to reap.
//!
//! So the program does not run as that process, but as a child of it, as under tini(1). The first process passes signals
//! on, reaps, and ends as its child does.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid};

use super::exit::exit_now;
use super::poll::wait_readable;

/// Where this is the first process, goes on in a child of it.
///
/// # Errors
/// As fork(2) and signalfd(2).
pub fn leave_pid_1() -> io::Result<()> {
    if getpid() != Pid::from_raw(1) {
        return Ok(());
    }
    let all = SigSet::all();
    let before = all.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)?;
    // SAFETY: there is one thread yet, and nothing is buffered.
    match unsafe { fork() }? {
        ForkResult::Child => Ok(before.thread_set_mask()?),
        ForkResult::Parent { child } => exit_now(attend(child)),
    }
}

/// Passes signals on and reaps until the child has ended; returns the status with which to end.
fn attend(child: Pid) -> u8 {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&SigSet::all(), flags);
    loop {
        if let Some(status) = reap(child) {
            return status;
        }
        let Ok(signals) = &signals else {
            // Nothing is passed on then, but the child is still waited for.
            let ended = waitpid(child, None).ok().and_then(status_of);
            return ended.unwrap_or(1);
        };
        let _ = wait_readable(&[Some(signals.as_fd())], None);
        while let Ok(Some(signal)) = signals.read_signal() {
            pass_on(child, &signal);
        }
    }
}

/// Reaps whatever has ended; returns the status of the child, if it is among them.
fn reap(child: Pid) -> Option<u8> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(ended) if ended.pid() == Some(child) => {
                if let Some(status) = status_of(ended) {
                    return Some(status);
                }
            }
            Ok(WaitStatus::StillAlive) => return None,
            Ok(_) | Err(Errno::EINTR) => {}
            // There is no child any more, and this one cannot have been missed.
            Err(_) => return Some(1),
        }
    }
}

fn status_of(ended: WaitStatus) -> Option<u8> {
    match ended {
        WaitStatus::Exited(_, status) => Some(status as u8),
        WaitStatus::Signaled(_, signal, _) => Some(128 + signal as u8),
        _ => None,
    }
}

/// Passes on what somebody sent. What the terminal sends, by way of the system, reaches all processes by itself.
fn pass_on(child: Pid, signal: &siginfo) {
    let is_sent = signal.ssi_code <= 0;
    if let Ok(signal) = Signal::try_from(signal.ssi_signo as i32)
        && is_sent
        && signal != Signal::SIGCHLD
    {
        let _ = kill(child, signal);
    }
}
