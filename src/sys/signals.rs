//! Signals, turned into something that `poll(2)` can wait for.
//!
//! A handler does two things only: it sets a flag, and it writes a byte into a pipe (both by signal-hook). The loop
//! that owns the [`Signals`] polls the pipe and looks at the flags.
//!
//! The pipe is shared with every forked child, so a child gives up its parent's handlers before it unblocks signals:
//! otherwise a signal that only the child got would wake the parent.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use signal_hook::SigId;

/// The registrations of this process, which a forked role has to undo.
static REGISTERED: Mutex<Vec<SigId>> = Mutex::new(Vec::new());

/// Set in a child that serves connections once it was asked to end.
static FINISH: AtomicBool = AtomicBool::new(false);

/// The signals that a loop waits for.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
    flags: Vec<(Signal, Arc<AtomicBool>)>,
}

impl Signals {
    /// Catches these signals from now on.
    ///
    /// # Errors
    /// Where the pipe or a handler cannot be made.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let (wake, write) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        let mut flags = Vec::new();
        let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        for &signal in signals {
            let flag = Arc::new(AtomicBool::new(false));
            // Handlers run in this order: whoever reads the byte finds the flag set.
            registered.push(signal_hook::flag::register(
                signal as i32,
                Arc::clone(&flag),
            )?);
            registered.push(signal_hook::low_level::pipe::register(
                signal as i32,
                write.try_clone()?,
            )?);
            flags.push((signal, flag));
        }
        Ok(Self { wake, flags })
    }

    /// Empties the pipe; call it when the descriptor polls readable, before the flags are looked at.
    pub fn clear(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.wake).read(&mut bytes), Ok(n) if n == bytes.len()) {}
    }

    /// Whether `signal` arrived since this was asked last.
    pub fn take(&self, signal: Signal) -> bool {
        self.flags
            .iter()
            .any(|(of, flag)| *of == signal && flag.swap(false, Ordering::Relaxed))
    }

    /// The first of these signals that arrived since this was asked last.
    pub fn take_any(&self, signals: &[Signal]) -> Option<Signal> {
        signals.iter().copied().find(|signal| self.take(*signal))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Lets writes that fail say so, instead of ending the process: to a closed pipe (PIPE, which Rust ignores already) and
/// beyond the limit of a file's size (XFSZ). Children inherit it.
///
/// # Errors
/// As sigaction(2).
pub fn let_writes_fail() -> io::Result<()> {
    set(Signal::SIGPIPE, SigHandler::SigIgn)?;
    set(Signal::SIGXFSZ, SigHandler::SigIgn)
}

/// In a forked role: takes the parent's actions out of the inherited handlers, so that the role can register its
/// own. (A raw default disposition could not be registered over again.)
pub(super) fn forget_inherited() {
    let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    for id in registered.drain(..) {
        signal_hook::low_level::unregister(id);
    }
}

/// In a forked role: a terminal's Ctrl-C or hang-up reaches the whole group, and its parent will say what to do.
pub(super) fn ignore_terminal_signals() -> io::Result<()> {
    for signal in [
        Signal::SIGPIPE,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
    ] {
        set(signal, SigHandler::SigIgn)?;
    }
    Ok(())
}

/// In a forked leaf: no handler of the parent's is left.
pub(super) fn become_leaf() -> io::Result<()> {
    ignore_terminal_signals()?;
    for signal in [Signal::SIGTERM, Signal::SIGCHLD, Signal::SIGALRM] {
        set(signal, SigHandler::SigDfl)?;
    }
    Ok(())
}

/// In a child that serves connections, with all signals blocked: TERM means to finish the response and to end. It gets
/// through only while the child waits, with the mask [`all_but_term`], so that it cannot fall between a look and a
/// wait.
pub(super) fn finish_on_term() -> io::Result<()> {
    extern "C" fn on_term(_: libc::c_int) {
        FINISH.store(true, Ordering::Relaxed);
    }
    set(Signal::SIGTERM, SigHandler::Handler(on_term))
}

/// What a child that serves connections blocks while it waits: the handlers of its parent must not run in it.
pub fn all_but_term() -> SigSet {
    let mut blocked = SigSet::all();
    blocked.remove(Signal::SIGTERM);
    blocked
}

/// In a thread that works for a loop: signals are for the loop. (One that comes before this does no harm: the handler
/// only tells the loop.)
pub fn leave_to_the_loop() {
    let _ = SigSet::all().thread_block();
}

/// Whether this child was asked to end. A wait for what is ready at once lets no signal through, so one that is held
/// back counts as well.
pub fn asked_to_finish() -> bool {
    FINISH.load(Ordering::Relaxed) || is_pending(Signal::SIGTERM)
}

fn is_pending(signal: Signal) -> bool {
    let mut pending = SigSet::empty().as_ref().to_owned();
    // SAFETY: `pending` is a signal set, which the call fills.
    let result = unsafe { libc::sigpending(&raw mut pending) };
    // SAFETY: as above; it was initialised before.
    result == 0 && unsafe { libc::sigismember(&raw const pending, signal as libc::c_int) } == 1
}

/// Dies of `signal`, as a program does that cleaned up after it, so that its parent sees the truth.
pub fn die_of(signal: Signal) -> ! {
    let _ = set(signal, SigHandler::SigDfl);
    let _ = SigSet::all().thread_unblock();
    let _ = nix::sys::signal::raise(signal);
    // Not reached with a fatal signal.
    super::exit::exit_now(128 + signal as u8)
}

fn set(signal: Signal, handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler is the default, to ignore, or a function that only stores to an atomic.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}
