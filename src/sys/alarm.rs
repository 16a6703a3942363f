//! alarm(2): the last resort against a process that does not end by itself.

use std::time::Duration;

use nix::unistd::alarm;

/// Ends this process by SIGALRM after so long, whatever it does then; in whole seconds, rounded up.
#[inline]
pub fn end_after(time: Duration) {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let _ = alarm::set(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX));
}

/// Calls that off.
pub fn cancel() {
    let _ = alarm::cancel();
}
