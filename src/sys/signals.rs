//! Signals, turned into something that `poll(2)` can wait for.
//!
//! A loop that owns [`Signals`] blocks those that it waits for and takes them from a signalfd(2): no handler runs in
//! it, nothing is interrupted, and what only a child got is no matter of its parent's.
//!
//! The loop may have a [`Watcher`], who is to know whether it lives and what it is at. The loop itself tells, where it
//! looks at its signals: one that hangs tells nothing, and a connection costs nothing.

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

/// What signalfd(2) says of one signal, in bytes.
const RECORD: usize = size_of::<libc::signalfd_siginfo>();
/// Signals that are read at once. Those that wait for more than one are few: one system call empties the descriptor.
const RECORDS: usize = 4;

/// The signals that ask a loop to stop, a bit for each.
const STOPPING: u64 = 1 << Signal::SIGTERM as u64 | 1 << Signal::SIGINT as u64;
/// A loop has more to do than to say that it lives.
const SHORTEST: Duration = Duration::from_millis(10);

/// Set in a child that serves connections once it was asked to end.
static FINISH: AtomicBool = AtomicBool::new(false);

/// What such a child blocks while it waits. Made before it is forked: see [`super::fork::spawn_server`].
static WHILE_WAITING: OnceLock<SigSet> = OnceLock::new();

/// The signals that a loop waits for.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    caught: SigSet,
    /// Those that arrived and were not taken, a bit for each.
    arrived: Cell<u64>,
    watch: Option<Watch>,
}

/// Somebody who is to know what a loop does, told by the loop itself.
pub trait Watcher: fmt::Debug {
    /// The loop lives.
    fn lives(&self);
    /// The loop was asked to stop, and goes about it.
    fn stopping(&self) {}
    /// The loop begins to look at its configuration again.
    fn reloading(&self) {}
    /// The loop has done that.
    fn reloaded(&self) {}
}

/// A watcher, and when it is told that the loop lives.
#[derive(Debug)]
struct Watch {
    watcher: Rc<dyn Watcher>,
    beat: Option<Beat>,
}

/// A clock that wakes the loop, whatever it waits for.
#[derive(Debug)]
struct Beat {
    timer: TimerFd,
    every: Duration,
    /// When the timer is due next, or a moment before: until then it need not be read.
    due: Cell<Instant>,
    /// Readable when the timer or the signals are.
    both: Epoll,
}

impl Signals {
    /// Catches these signals from now on; they stay blocked.
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

    /// Tells `watcher` from now on what the loop does, and `every` so long that it lives.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn watched_by(self, watcher: Rc<dyn Watcher>, every: Option<Duration>) -> io::Result<Self> {
        let beat = every.map(|every| Beat::new(&self.fd, every)).transpose()?;
        let watch = Some(Watch { watcher, beat });
        Ok(Self { watch, ..self })
    }

    /// Unblocks all signals but these: a process that was just forked has all of them blocked.
    pub(super) fn unblock_others(&self) -> io::Result<()> {
        self.caught.thread_set_mask()?;
        Ok(())
    }

    /// Takes note of what arrived, so that the descriptor is not readable any more: call it when it is, before
    /// [`Signals::take`], and look at everything that a signal may mean before the next wait.
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

    /// Whether `signal` arrived since this was asked last.
    pub fn take(&self, signal: Signal) -> bool {
        let (bit, arrived) = (1 << signal as u64, self.arrived.get());
        if arrived & bit != 0 {
            self.arrived.set(arrived & !bit);
        }
        arrived & bit != 0
    }

    /// Looks at the configuration again, as was asked for.
    pub fn reloading<T>(&self, reload: impl FnOnce() -> T) -> T {
        let watcher = self.watch.as_ref().map(|watch| &watch.watcher);
        watcher.inspect(|watcher| watcher.reloading());
        let reloaded = reload();
        watcher.inspect(|watcher| watcher.reloaded());
        reloaded
    }

    /// The first of these signals that arrived since this was asked last.
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

    /// Whether it is time to show a sign of life; not again until it is time again.
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

/// Lets writes that fail say so, instead of ending the process: to a closed pipe (PIPE, which Rust ignores already) and
/// beyond the limit of a file's size (XFSZ). Children inherit it.
///
/// # Errors
/// As sigaction(2).
pub fn let_writes_fail() -> io::Result<()> {
    set(Signal::SIGPIPE, SigHandler::SigIgn)?;
    set(Signal::SIGXFSZ, SigHandler::SigIgn)
}

/// Whether this process ignores `signal`, as it may have from its start (nohup(1)). A loop that waits for one gets it all
/// the same, for what is blocked is not thrown away: so look before.
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: an action of zero bytes is one: the default, without flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set, and the action that is filled in outlives the call.
    let asked = unsafe { libc::sigaction(signal as i32, std::ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// In a forked role: a terminal's Ctrl-C or hang-up reaches the whole group, and its parent will say what to do. What
/// the role waits for itself is left as it is: one that the parent has sent already would be thrown away.
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

/// In a forked leaf: nothing is as it is in a loop.
pub(super) fn become_leaf() -> io::Result<()> {
    ignore_terminal_signals(&[])?;
    for signal in [Signal::SIGTERM, Signal::SIGCHLD, Signal::SIGALRM] {
        set(signal, SigHandler::SigDfl)?;
    }
    Ok(())
}

/// For the children that will serve connections: TERM means to finish the response and to end. It gets through only
/// while such a child waits, with the mask [`blocked_while_waiting`], so that it cannot fall between a look and a wait. The
/// parent, which blocks it, never runs the handler.
///
/// An alarm ends such a child at any time: whoever started the program may have ignored or blocked it.
fn finish_on_term() -> io::Result<()> {
    extern "C" fn on_term(_: libc::c_int) {
        FINISH.store(true, Ordering::Relaxed);
    }
    blocked_while_waiting();
    set(Signal::SIGALRM, SigHandler::SigDfl)?;
    SigSet::from(Signal::SIGALRM).thread_unblock()?;
    set(Signal::SIGTERM, SigHandler::Handler(on_term))
}

/// What a child that serves connections blocks while it waits: all but what asks it to end, and what makes it.
pub fn blocked_while_waiting() -> &'static SigSet {
    WHILE_WAITING.get_or_init(|| {
        let mut blocked = SigSet::all();
        blocked.remove(Signal::SIGTERM);
        blocked.remove(Signal::SIGALRM);
        blocked
    })
}

/// In a thread that works for a loop: signals are for the loop, also those that it does not wait for.
pub fn leave_to_the_loop() {
    let _ = SigSet::all().thread_block();
}

/// Whether this child was asked to end, as far as a signal got through to it.
pub fn asked_to_finish() -> bool {
    FINISH.load(Ordering::Relaxed)
}

/// Whether this child is being asked to end: a wait for what is ready at once lets no signal through.
pub fn is_term_pending() -> bool {
    // As the system has it: a bit for each signal, from 1 on.
    let mut pending = 0_u64;
    // SAFETY: the system fills a set of this size, which outlives the call.
    let asked = unsafe { syscall!(Sysno::rt_sigpending, &raw mut pending, size_of::<u64>()) };
    asked.is_ok() && pending & 1 << (Signal::SIGTERM as u64 - 1) != 0
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
