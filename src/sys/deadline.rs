//! A deadline for work that may hang in a file system.
//!
//! A loop that reads its signals from a descriptor does not see them while a system call hangs: on a network mount whose
//! server is gone, on a file system in user space that was stopped. Only a signal that kills gets through to such a
//! call. So while the loop does such work, TERM and INT have a handler that sets an alarm, whose default is to kill.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigHandler, SigSet, Signal, raise};

use super::alarm;
use super::signals::{self, Signals};

/// The signals that ask to end.
const ENDING: [Signal; 2] = [Signal::SIGTERM, Signal::SIGINT];
/// How long whoever asks a second time waits.
const HURRY: Duration = Duration::from_secs(1);

/// Those that arrived during the work, as a bit set.
static ARRIVED: AtomicU32 = AtomicU32::new(0);
/// The time until the alarm, in milliseconds.
static GRACE: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_signal(signal: libc::c_int) {
    let before = ARRIVED.fetch_or(1 << signal, Ordering::Relaxed);
    let grace = Duration::from_millis(GRACE.load(Ordering::Relaxed));
    alarm::end_after(if before == 0 { grace } else { HURRY });
}

impl Signals {
    /// Does work that may hang. Where TERM or INT arrives meanwhile and the work is not done `grace` later, this process
    /// is killed by SIGALRM, and its children with it; a second signal shortens that to a second. Otherwise the signal
    /// is there afterwards, to be taken as ever.
    ///
    /// # Errors
    /// As sigaction(2) and sigprocmask(2).
    pub fn with_deadline<T>(&self, grace: Duration, work: impl FnOnce() -> T) -> io::Result<T> {
        let mut ending = SigSet::empty();
        for signal in ENDING.into_iter().filter(|signal| self.waits_for(*signal)) {
            ending.add(signal);
            signals::set(signal, SigHandler::Handler(on_signal))?;
        }
        let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        GRACE.store(grace, Ordering::Relaxed);
        ending.thread_unblock()?;
        let done = work();
        ending.thread_block()?;
        signals::restore_ending()?;
        let arrived = ARRIVED.swap(0, Ordering::Relaxed);
        if arrived != 0 {
            alarm::cancel();
        }
        // They are blocked, and so are read from the descriptor.
        for signal in &ending {
            if arrived & 1 << signal as u32 != 0 {
                raise(signal)?;
            }
        }
        Ok(done)
    }
}
