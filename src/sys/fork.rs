//! The one place that forks.
//!
//! A child runs a closure and can only leave through `_exit`: it never unwinds into its parent's code, never runs a
//! destructor or flushes a buffer of its parent's. Before the closure runs,
//!
//! * the child has asked to die with its parent (`PR_SET_PDEATHSIG`), and has made sure that it still lives;
//! * its signals are its own: see [`crate::sys::signals`];
//! * every descriptor is closed but standard input, output and error and those that were given to it.
//!
//! A process that forks has no threads; debug builds assert it.

use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{Pid, getpid, getppid};

use super::exit::exit_now;
use super::signals::{self, Signals};

/// Exit status of a child that panicked (`EX_SOFTWARE`).
pub const PANICKED: u8 = 70;
/// Exit status of a child that could not even begin (`EX_OSERR`).
const UNABLE: u8 = 71;

/// Forks a process that does one thing and ends: one connection, one download, one file to hash.
///
/// It ignores INT, HUP, USR1 and PIPE; TERM, CHLD and ALRM have their default effects.
///
/// # Errors
/// Where fork(2) fails, which leaves nothing behind.
pub fn spawn_leaf(keep: &[BorrowedFd<'_>], body: impl FnOnce() -> u8) -> io::Result<Pid> {
    flush();
    spawn(libc::fork, SigSet::all(), || {
        signals::become_leaf()?;
        close_others(Kept::of(keep).iter())?;
        SigSet::all().thread_unblock()?;
        Ok(body())
    })
}

/// Forks a process that serves connections, with the descriptor `own` beside those of `kept`.
///
/// All signals stay blocked but ALRM (see [`super::alarm`]); and but TERM while it waits for a client (see
/// [`super::poll::wait_interruptibly`]), which it takes to mean that it is to finish. That is the same as to ignore
/// INT, HUP, USR1 and PIPE, at a fraction of the system calls.
///
/// Every connection pays for what is done here. A page that parent or child write to after the fork has to be copied,
/// and one of the program that the child is the first to execute has to be mapped: each costs more than a system
/// call. So this allocates nothing, and does not flush standard output: a server's loop has nothing to print.
///
/// # Errors
/// Where fork(2) fails, which leaves nothing behind.
pub fn spawn_server(
    kept: &Kept,
    own: BorrowedFd<'_>,
    body: impl FnOnce() -> u8,
) -> io::Result<Pid> {
    let own = own.as_raw_fd();
    spawn(bare_fork, signals::blocked_while_working(), || {
        let before = kept.iter().take_while(|fd| *fd < own);
        let after = kept.iter().skip_while(|fd| *fd < own);
        close_others(before.chain([own]).chain(after))?;
        Ok(body())
    })
}

/// Descriptors that children keep, made ready once for many forks. They are numbers only: whoever forks sees to it that
/// they stay open, or children keep what has come to have such a number.
#[derive(Debug)]
pub struct Kept {
    ascending: Vec<RawFd>,
}

impl Kept {
    /// These descriptors.
    pub fn new(descriptors: impl IntoIterator<Item = RawFd>) -> Self {
        let also = ALSO_KEPT.load(Ordering::Relaxed);
        let mut ascending: Vec<RawFd> = descriptors.into_iter().chain([also]).collect();
        ascending.sort_unstable();
        ascending.dedup();
        Self { ascending }
    }

    /// These descriptors, for a fork while they are borrowed.
    fn of(descriptors: &[BorrowedFd<'_>]) -> Self {
        Self::new(descriptors.iter().map(AsRawFd::as_raw_fd))
    }

    /// In ascending order.
    fn iter(&self) -> impl Iterator<Item = RawFd> {
        self.ascending.iter().copied()
    }
}

/// Forks a long-lived role with a poll loop and children of its own. It learns of TERM, CHLD and the signals in `also`
/// through the [`Signals`] that `body` gets; INT, HUP, USR1 and PIPE it ignores otherwise, for they reach the whole
/// group of a terminal.
///
/// # Errors
/// Where fork(2) fails, which leaves nothing behind.
pub fn spawn_role(
    keep: &[BorrowedFd<'_>],
    also: &[Signal],
    body: impl FnOnce(Signals) -> u8,
) -> io::Result<Pid> {
    flush();
    spawn(libc::fork, SigSet::all(), || {
        close_others(Kept::of(keep).iter())?;
        signals::ignore_terminal_signals()?;
        let own = Signals::new(&[&[Signal::SIGTERM, Signal::SIGCHLD], also].concat())?;
        own.unblock_others()?;
        Ok(body(own))
    })
}

/// What is still buffered would be printed twice.
fn flush() {
    let _ = io::stdout().flush();
}

/// Forks; `begin` runs in the child, with these signals blocked, and its value is the exit status.
#[inline(always)]
fn spawn(fork: Fork, blocked: SigSet, begin: impl FnOnce() -> io::Result<u8>) -> io::Result<Pid> {
    debug_assert_eq!(threads(), 1, "a process that forks has no threads");
    let parent = getpid();
    // A signal between the fork and the child's own dispositions would run a handler of the parent's.
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: the process has one thread, so the child may go on as its parent would have; it never returns from
    // this function, because `child` ends in `_exit`.
    let forked = Errno::result(unsafe { fork() });
    if forked == Ok(0) {
        child(parent, begin);
    }
    before.thread_set_mask()?;
    Ok(Pid::from_raw(forked?))
}

/// A function that forks.
type Fork = unsafe extern "C" fn() -> libc::pid_t;

/// fork(2) without what the C library adds for the sake of threads: the child would write to three pages only to reset
/// locks that nobody holds, and to keep a thread id that nobody asks for.
///
/// # Safety
/// The process has one thread, and the child makes none: its C library would not know which thread it is.
unsafe extern "C" fn bare_fork() -> libc::pid_t {
    // SAFETY: with no flag but the signal for the parent, clone(2) is fork(2).
    unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as libc::pid_t }
}

/// The first and the last thing that a child does.
#[inline(always)]
fn child(parent: Pid, begin: impl FnOnce() -> io::Result<u8>) -> ! {
    let run = || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            // The parent died before the request above: nobody would end this child.
            return Ok(UNABLE);
        }
        begin()
    };
    // Never dropped, as nothing is in a child.
    let ended = ManuallyDrop::new(catch_unwind(AssertUnwindSafe(run)));
    let status = match *ended {
        Ok(Ok(status)) => status,
        Ok(Err(_)) => UNABLE,
        Err(_) => PANICKED,
    };
    exit_now(status)
}

/// The descriptor that every child keeps, or -1.
static ALSO_KEPT: AtomicI32 = AtomicI32::new(-1);

/// Lets every child keep this descriptor too, which must stay open: where the log goes.
pub fn always_keep(fd: Option<BorrowedFd<'_>>) {
    ALSO_KEPT.store(fd.map_or(-1, |fd| fd.as_raw_fd()), Ordering::Relaxed);
}

/// Closes every descriptor above 2 that is not in `kept`, which ascends. Close-on-exec is no help to a child that never
/// execs.
fn close_others(kept: impl Iterator<Item = RawFd>) -> io::Result<()> {
    let mut first = 3;
    for fd in kept.filter(|fd| *fd > 2) {
        close_range(first, fd - 1)?;
        first = fd + 1;
    }
    close_range(first, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: closes descriptors by number only. Their owners in this copy of the parent's memory are never used
    // again, nor dropped: the child runs nothing of the parent's and leaves through _exit.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The number of threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Fails where this process has more than one thread: asked once before a loop that forks.
///
/// # Errors
/// With the number of threads.
pub fn assert_single_threaded() -> io::Result<()> {
    match threads() {
        1 => Ok(()),
        n => Err(io::Error::other(format!(
            "a process that forks must have one thread, this one has {n}"
        ))),
    }
}

/// Gives the random number generator of this process a state of its own: a fork copies it.
pub fn reseed() {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let pid = u64::from(getpid().as_raw().unsigned_abs());
    fastrand::seed(
        fastrand::u64(..)
            ^ (now.as_nanos() as u64).rotate_left(32)
            ^ pid.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    );
}
