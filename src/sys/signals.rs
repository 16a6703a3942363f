//! Signals, turned into something that `poll(2)` can wait for.
//!
//! A loop that owns [`Signals`] blocks the signals that it waits for and reads them from a signalfd(2): no handler
//! runs, and no system call is interrupted. What was sent to a child alone does not concern its parent.
//!
//! The loop may have a [`Watcher`], such as a service manager's watchdog. The loop itself notifies it whenever it reads
//! its signals, so that a loop that hangs stays silent; and this costs nothing for a connection.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::read;

use super::call::{Sysno, syscall};

/// The size of a `signalfd_siginfo`, in bytes.
const RECORD: usize = size_of::<libc::signalfd_siginfo>();
/// Signals fetched by one read. More are seldom pending, so one system call usually empties the descriptor.
const RECORDS: usize = 4;

/// The signals that ask a loop to stop, as a bit set.
const STOPPING: u64 = 1 << Signal::SIGTERM as u64 | 1 << Signal::SIGINT as u64;
/// The least interval between two notifications that the loop is alive.
const SHORTEST: Duration = Duration::from_millis(10);

/// Set in a child that serves connections, once it was asked to end.
static FINISH: AtomicBool = AtomicBool::new(false);

/// The mask of such a child while it waits; prepared before the fork: see [`super::fork::spawn_server`].
static WHILE_WAITING: OnceLock<SigSet> = OnceLock::new();

/// The signals for which a loop waits.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    caught: SigSet,
    /// Signals that have arrived and were not taken yet, as a bit set.
    arrived: Cell<u64>,
    watch: Option<Watch>,
}

/// An observer of the loop's state, notified by the loop itself.
pub trait Watcher: fmt::Debug {
    /// The loop is alive.
    fn lives(&self);
    /// The loop was asked to stop, and is stopping.
    fn stopping(&self) {}
    /// The loop starts to reload its configuration.
    fn reloading(&self) {}
    /// The loop has reloaded its configuration.
    fn reloaded(&self) {}
}

/// A watcher, and when it is next told that the loop is alive.
#[derive(Debug)]
struct Watch {
    watcher: Rc<dyn Watcher>,
    beat: Option<Beat>,
}

/// A timer that wakes the loop, whatever else it waits for.
#[derive(Debug)]
struct Beat {
    timer: TimerFd,
    every: Duration,
    /// A moment shortly before the timer expires; until then it need not be read.
    due: Cell<Instant>,
    /// An epoll descriptor, readable when the timer or the signals are.
    both: Epoll,
}

impl Signals {
    /// Starts to catch these signals; they stay blocked.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let mut caught = SigSet::empty();
        for signal in signals {
            caught.add(*signal);
        }
        let fd = SignalFd::with_flags(&caught, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        caught.thread_block()?;
        finish_on_term()?;
        Ok(Self {
            fd,
            caught,
            arrived: Cell::new(0),
            watch: None,
        })
    }

    /// Notifies `watcher` from now on of what the loop does, and at intervals of `every` that it is alive.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn watched_by(self, watcher: Rc<dyn Watcher>, every: Option<Duration>) -> io::Result<Self> {
        let beat = every.map(|every| Beat::new(&self.fd, every)).transpose()?;
        let watch = Some(Watch { watcher, beat });
        Ok(Self { watch, ..self })
    }

    /// Whether the loop waits for this signal.
    pub(super) fn waits_for(&self, signal: Signal) -> bool {
        self.caught.contains(signal)
    }

    /// Unblocks all signals but these; a process that was just forked has all of them blocked.
    pub(super) fn unblock_others(&self) -> io::Result<()> {
        self.caught.thread_set_mask()?;
        Ok(())
    }

    /// Reads the signals that have arrived, so that the descriptor is not readable any more. Call it when the
    /// descriptor is readable, before [`Signals::take`], and handle every signal before the next wait.
    pub fn clear(&self) {
        let before = self.arrived.get();
        self.read();
        let Some(Watch { watcher, beat }) = &self.watch else {
            return;
        };
        if beat.as_ref().is_some_and(Beat::is_due) {
            watcher.lives();
        }
        if STOPPING & self.arrived.get() & !before != 0 {
            watcher.stopping();
        }
    }

    fn read(&self) {
        let mut records = [0; RECORDS * RECORD];
        while let Ok(n) = read(&self.fd, &mut records) {
            for record in records[..n].chunks_exact(RECORD) {
                // signalfd(2): the number of the signal is the first field.
                let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
                self.arrived.set(self.arrived.get() | 1 << number);
            }
            if n < records.len() {
                return;
            }
        }
    }

    /// Whether `signal` arrived since the last call for it.
    pub fn take(&self, signal: Signal) -> bool {
        let (bit, arrived) = (1 << signal as u64, self.arrived.get());
        if arrived & bit != 0 {
            self.arrived.set(arrived & !bit);
        }
        arrived & bit != 0
    }

    /// Reloads the configuration, and tells the watcher when that starts and ends.
    pub fn reloading<T>(&self, reload: impl FnOnce() -> T) -> T {
        let watcher = self.watch.as_ref().map(|watch| &watch.watcher);
        watcher.inspect(|watcher| watcher.reloading());
        let reloaded = reload();
        watcher.inspect(|watcher| watcher.reloaded());
        reloaded
    }

    /// The first of these signals that has arrived since it was last taken.
    pub fn take_any(&self, signals: &[Signal]) -> Option<Signal> {
        signals.iter().copied().find(|signal| self.take(*signal))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let beat = self.watch.as_ref().and_then(|watch| watch.beat.as_ref());
        beat.map_or(self.fd.as_fd(), |beat| beat.both.0.as_fd())
    }
}

impl Beat {
    fn new(signals: &SignalFd, every: Duration) -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let both = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let readable = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        both.add(signals, readable)?;
        both.add(&timer, readable)?;
        // At once, too: by then something has begun.
        let (first, every) = (Duration::from_nanos(1), every.max(SHORTEST));
        let due = Cell::new(Instant::now());
        let times = Expiration::IntervalDelayed(first.into(), TimeSpec::from(every));
        timer.set(times, TimerSetTimeFlags::empty())?;
        Ok(Self {
            timer,
            every,
            due,
            both,
        })
    }

    /// Whether it is time to tell the watcher that the loop is alive; if so, starts the next interval.
    fn is_due(&self) -> bool {
        // Signals come far more often: they cost no look at the timer.
        if Instant::now() < self.due.get() {
            return false;
        }
        let mut times = [0; size_of::<u64>()];
        // It does not block: there is nothing to read before.
        if read(&self.timer, &mut times).is_err() {
            return false;
        }
        // The clock is that of the timer, so that both stay together.
        let times = u32::try_from(u64::from_ne_bytes(times)).unwrap_or(u32::MAX);
        let next = self.due.get().checked_add(self.every.saturating_mul(times));
        self.due.set(next.unwrap_or_else(Instant::now));
        true
    }
}

/// Makes failing writes return an error instead of killing the process: writes to a closed pipe (SIGPIPE, which Rust
/// already ignores) and beyond the file size limit (SIGXFSZ). Children inherit this.
///
/// # Errors
/// As sigaction(2).
pub fn let_writes_fail() -> io::Result<()> {
    set(Signal::SIGPIPE, SigHandler::SigIgn)?;
    set(Signal::SIGXFSZ, SigHandler::SigIgn)
}

/// Whether this process ignores `signal`, perhaps since it was started (nohup(1)). A loop that waits for the signal would
/// get it all the same, since a blocked signal is not discarded; so check first.
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: an action of zero bytes is one: the default, without flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set, and the action that is filled in outlives the call.
    let asked = unsafe { libc::sigaction(signal as i32, std::ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// For a forked role: Ctrl-C or a hang-up of the terminal reaches the whole process group, but the parent decides what
/// to do. Signals for which the role itself waits are left alone: ignoring one would discard it where the parent has
/// sent it already.
pub(super) fn ignore_terminal_signals(awaited: &[Signal]) -> io::Result<()> {
    let signals = [
        Signal::SIGPIPE,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
    ];
    for signal in signals.iter().filter(|signal| !awaited.contains(signal)) {
        set(*signal, SigHandler::SigIgn)?;
    }
    Ok(())
}

/// For a forked leaf, which has no loop that waits for signals.
pub(super) fn become_leaf() -> io::Result<()> {
    ignore_terminal_signals(&[])?;
    for signal in [Signal::SIGTERM, Signal::SIGCHLD, Signal::SIGALRM] {
        set(signal, SigHandler::SigDfl)?;
    }
    Ok(())
}

/// For children that serve connections: TERM asks to finish the response and to end. It is unblocked only while such a
/// child waits, with the mask [`blocked_while_waiting`], so that it cannot be missed between a check and the wait. The
/// parent blocks it, and never runs the handler.
///
/// SIGALRM must end such a child at any time, even if it was ignored or blocked when the program was started.
fn finish_on_term() -> io::Result<()> {
    extern "C" fn on_term(_: libc::c_int) {
        FINISH.store(true, Ordering::Relaxed);
    }
    blocked_while_waiting();
    set(Signal::SIGALRM, SigHandler::SigDfl)?;
    SigSet::from(Signal::SIGALRM).thread_unblock()?;
    set(Signal::SIGTERM, SigHandler::Handler(on_term))
}

/// What TERM and INT do to a loop, where both are blocked.
pub(super) fn restore_ending() -> io::Result<()> {
    set(Signal::SIGINT, SigHandler::SigDfl)?;
    finish_on_term()
}

/// The signal mask of a child that serves connections while it waits: all signals but those that ask it to end.
pub fn blocked_while_waiting() -> &'static SigSet {
    WHILE_WAITING.get_or_init(|| {
        let mut blocked = SigSet::all();
        blocked.remove(Signal::SIGTERM);
        blocked.remove(Signal::SIGALRM);
        blocked
    })
}

/// For a worker thread of a loop: all signals are blocked, so that the loop's thread gets them.
pub fn leave_to_the_loop() {
    let _ = SigSet::all().thread_block();
}

/// Whether this child was asked to end, by a signal that was delivered already.
pub fn asked_to_finish() -> bool {
    FINISH.load(Ordering::Relaxed)
}

/// Whether this child was asked to end, by a signal that may still be pending: a wait that does not block delivers
/// none.
pub fn is_term_pending() -> bool {
    // As the system has it: a bit for each signal, from 1 on.
    let mut pending = 0_u64;
    // SAFETY: the system fills a set of this size, which outlives the call.
    let asked = unsafe { syscall!(Sysno::rt_sigpending, &raw mut pending, size_of::<u64>()) };
    asked.is_ok() && pending & 1 << (Signal::SIGTERM as u64 - 1) != 0
}

/// Dies of `signal`, as a program should that has cleaned up after it, so that its parent sees the true cause.
pub fn die_of(signal: Signal) -> ! {
    let _ = set(signal, SigHandler::SigDfl);
    let _ = SigSet::all().thread_unblock();
    let _ = nix::sys::signal::raise(signal);
    // Not reached with a fatal signal.
    super::exit::exit_now(128 + signal as u8)
}

pub(super) fn set(signal: Signal, handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler is the default, to ignore, or a function that only stores to atomics
    // and makes system calls.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}
