//! SIGALRM: the last resort against a process that does not end by itself.

use std::time::Duration;

use super::call::{Sysno, syscall};

/// Kills this process by SIGALRM after this time, whatever it does then; in whole seconds, rounded up.
#[inline(always)]
pub fn end_after(time: Duration) {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    set(libc::time_t::try_from(seconds.max(1)).unwrap_or(libc::time_t::MAX));
}

/// Cancels the alarm.
pub fn cancel() {
    set(0);
}

/// alarm(2) by way of setitimer(2): not every architecture has it as a system call.
#[inline(always)]
fn set(seconds: libc::time_t) {
    let time = |tv_sec| libc::timeval { tv_sec, tv_usec: 0 };
    let timer = libc::itimerval {
        it_interval: time(0),
        it_value: time(seconds),
    };
    // SAFETY: the structure outlives the call, which does not write to it.
    let _ = unsafe { syscall!(Sysno::setitimer, libc::ITIMER_REAL, &raw const timer, 0) };
}
