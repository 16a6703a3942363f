//! What the program is started with, which whoever starts it may have changed: signals that are ignored or blocked, and
//! the limit on descriptors. It is set right before anything else, and given back to the user's commands.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Signals that were ignored at the start, as a bit set; the runtime ignores SIGPIPE before `main`, so this is filled in
/// before that.
static IGNORED: AtomicU64 = AtomicU64::new(0);
/// What else there was.
static INHERITED: OnceLock<Inherited> = OnceLock::new();

#[derive(Debug)]
struct Inherited {
    blocked: SigSet,
    /// The limits on descriptors, soft and hard.
    descriptors: Option<(u64, u64)>,
}

/// Runs before `main`, and before the runtime.
extern "C" fn note_ignored() {
    super::needs::check_before_main();
    let is_ignored = |signal: &Signal| super::signals::is_ignored(*signal);
    let bits = Signal::iterator().filter(is_ignored);
    IGNORED.store(
        bits.fold(0, |bits, signal| bits | bit(signal)),
        Ordering::Relaxed,
    );
}

// SAFETY: the loader calls what is listed there once, when the program's memory is set up. The function makes system
// calls and stores to an atomic.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE_IGNORED: extern "C" fn() = note_ignored;

fn bit(signal: Signal) -> u64 {
    1 << signal as u64
}

/// Takes note of what was inherited, and sets right what the program relies on: no signal is blocked, and SIGCHLD is
/// not ignored, or nobody would learn that a child has ended.
///
/// # Errors
/// As sigaction(2) and sigprocmask(2).
pub fn set_right() -> io::Result<()> {
    let blocked = SigSet::thread_get_mask()?;
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).ok();
    let _ = INHERITED.set(Inherited {
        blocked,
        descriptors,
    });
    for signal in [Signal::SIGCHLD, Signal::SIGALRM, Signal::SIGTERM] {
        set(signal, SigHandler::SigDfl)?;
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Whether a signal was ignored when the program was started.
pub fn was_ignored(signal: Signal) -> bool {
    IGNORED.load(Ordering::Relaxed) & bit(signal) != 0
}

/// Gives all of it back, in a child that is about to execute a user's command. Makes system calls only, and allocates
/// nothing.
pub(super) fn give_back() -> io::Result<()> {
    let fixed = [Signal::SIGKILL, Signal::SIGSTOP];
    for signal in Signal::iterator().filter(|signal| !fixed.contains(signal)) {
        let handler = match was_ignored(signal) {
            true => SigHandler::SigIgn,
            false => SigHandler::SigDfl,
        };
        set(signal, handler)?;
    }
    let inherited = INHERITED.get();
    if let Some((soft, hard)) = inherited.and_then(|inherited| inherited.descriptors) {
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    }
    // After that: what was pending for this process has its own effect.
    let blocked = inherited.map_or_else(SigSet::empty, |inherited| inherited.blocked);
    blocked.thread_set_mask()?;
    Ok(())
}

fn set(signal: Signal, handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: neither the default effect nor to ignore a signal is a handler.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}
