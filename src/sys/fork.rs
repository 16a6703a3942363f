//! The one place that forks.
//!
//! A child runs a closure and can leave only through `_exit`: it never unwinds into its parent's code, runs no
//! destructor and flushes no buffer of its parent's. Before the closure runs,
//!
//! * the child has asked to die with its parent (`PR_SET_PDEATHSIG`), and has made sure that it still lives;
//! * its signals are those that it is to have: see [`crate::sys::signals`];
//! * every descriptor is closed but standard input, output and error and those that were given to it.
//!
//! A process that forks has no threads; debug builds assert it.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{Pid, getpid};

use super::call::{Sysno, result, syscall};
use super::exit::exit_now;
use super::signals::{self, Signals};

/// Exit status of a child that panicked (`EX_SOFTWARE`).
pub const PANICKED: u8 = 70;
/// Exit status of a child whose setup failed (`EX_OSERR`).
const UNABLE: u8 = 71;

/// Forks a process for a single task: one connection, one download, one file to hash.
///
/// It ignores INT, HUP, USR1 and PIPE; TERM, CHLD and ALRM have their default effects.
///
/// # Errors
/// Where fork(2) fails, which leaves nothing behind.
pub fn spawn_leaf(keep: &[BorrowedFd<'_>], body: impl FnOnce() -> u8) -> io::Result<Pid> {
    spawn_leaf_keeping(&Kept::of(keep), body)
}

/// Like [`spawn_leaf`], for a body that owns the descriptors it keeps, as its copy of the parent's memory does.
///
/// # Errors
/// As [`spawn_leaf`].
pub fn spawn_leaf_keeping(kept: &Kept, body: impl FnOnce() -> u8) -> io::Result<Pid> {
    spawn_other(kept.parent, || {
        signals::become_leaf()?;
        close_others(kept, &[])?;
        SigSet::all().thread_unblock()?;
        Ok(body())
    })
}

/// Forks a process that serves connections, with the descriptor `own` beside those of `kept`.
///
/// It blocks the signals that its parent blocks: INT, HUP and USR1, where the parent waits for them (see
/// [`super::signals`]) and does not ignore them; and TERM except while it waits for a client, when TERM asks it to
/// finish. ALRM ends it (see [`super::alarm`]). Signal dispositions are set up before the fork, so there is no moment
/// at which they are wrong.
///
/// This is the hot path: every connection pays for it. A page that parent or child writes to after the fork is copied,
/// and a part of the program that the child is first to execute is mapped; either costs more than a system call. So
/// this does not allocate, and does not flush standard output, to which a server's loop writes nothing.
///
/// # Errors
/// Where fork(2) fails, which leaves nothing behind.
#[inline(always)]
pub fn spawn_server(
    kept: &Kept,
    own: BorrowedFd<'_>,
    body: impl FnOnce() -> u8,
) -> io::Result<Pid> {
    assert_may_fork(kept.parent);
    match bare_fork()? {
        0 => {
            let _barrier = Barrier;
            let begun = die_with(kept.parent) && close_others(kept, &[own.as_raw_fd()]).is_ok();
            exit_now(if begun { body() } else { UNABLE })
        }
        pid => Ok(pid_of(pid)),
    }
}

/// The descriptors that children keep, prepared once for many forks. They are stored as numbers: the caller makes sure
/// that they stay open, or children would keep whatever reuses such a number.
#[derive(Debug)]
pub struct Kept {
    ascending: Vec<RawFd>,
    parent: Pid,
}

impl Kept {
    /// The set of these descriptors.
    pub fn new(descriptors: impl IntoIterator<Item = RawFd>) -> Self {
        let also = ALSO_KEPT.load(Ordering::Relaxed);
        let mut ascending: Vec<RawFd> = descriptors.into_iter().chain([also]).collect();
        ascending.sort_unstable();
        ascending.dedup();
        let parent = getpid();
        Self { ascending, parent }
    }

    /// These descriptors, for a fork while they are borrowed.
    fn of(descriptors: &[BorrowedFd<'_>]) -> Self {
        Self::new(descriptors.iter().map(AsRawFd::as_raw_fd))
    }
}

/// Forks a long-lived role that has a poll loop and children of its own. It receives TERM, CHLD and the signals in
/// `also` through the [`Signals`] that `body` gets. It ignores INT, HUP, USR1 and PIPE otherwise, since a terminal
/// sends them to its whole process group.
///
/// # Errors
/// Where fork(2) fails, which leaves nothing behind.
pub fn spawn_role(
    keep: &[BorrowedFd<'_>],
    also: &[Signal],
    body: impl FnOnce(Signals) -> u8,
) -> io::Result<Pid> {
    let kept = Kept::of(keep);
    spawn_other(kept.parent, || {
        close_others(&kept, &[])?;
        signals::ignore_terminal_signals(also)?;
        let own = Signals::new(&[&[Signal::SIGTERM, Signal::SIGCHLD], also].concat())?;
        own.unblock_others()?;
        Ok(body(own))
    })
}

/// Forks a process of another kind than its parent; `begin` runs in it with all signals blocked.
fn spawn_other(parent: Pid, begin: impl FnOnce() -> io::Result<u8>) -> io::Result<Pid> {
    assert_may_fork(parent);
    // What is still buffered would be printed twice.
    let _ = io::stdout().flush();
    // A signal between the fork and the child's own dispositions would have the effect that it has on the parent.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let forked = full_fork();
    if forked == Ok(0) {
        let _barrier = Barrier;
        let status = die_with(parent).then(begin);
        exit_now(status.and_then(Result::ok).unwrap_or(UNABLE));
    }
    before.thread_set_mask()?;
    Ok(pid_of(forked?))
}

/// In debug builds, asserts that `parent` is this process and is single-threaded.
fn assert_may_fork(parent: Pid) {
    debug_assert_eq!(threads(), 1, "a process that forks has no threads");
    debug_assert_eq!(parent, getpid(), "it is the parent that forks");
}

fn pid_of(number: usize) -> Pid {
    Pid::from_raw(number as libc::pid_t)
}

/// fork(2) through the C library.
fn full_fork() -> Result<usize, Errno> {
    // SAFETY: the process has one thread, so the child may go on as its parent would have. Whoever calls this lets it run
    // nothing but what it was made for, and end.
    Errno::result(unsafe { libc::fork() }).map(|pid| pid as usize)
}

/// fork(2) without the C library's support for threads: with it, the child would write to three pages only to reset
/// locks that nobody holds and to record a thread ID that nobody asks for. The child must not start threads, since its
/// C library has the parent's thread ID.
#[inline(always)]
fn bare_fork() -> Result<usize, Errno> {
    // SAFETY: as above; with no flag but the signal for the parent, clone(2) is fork(2).
    result(unsafe { syscall!(Sysno::clone, libc::SIGCHLD, 0, 0, 0, 0) })
}

/// The first thing that a child does: it asks the kernel to kill it when its parent dies. Returns whether `parent` is
/// still alive, for otherwise that signal never comes.
#[inline(always)]
fn die_with(parent: Pid) -> bool {
    // SAFETY: the call takes numbers only.
    let asked = unsafe { syscall!(Sysno::prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: as above.
    let now = unsafe { syscall!(Sysno::getppid) };
    asked.is_ok() && now == Ok(parent.as_raw() as usize)
}

/// Ends the process where a panic would leave the child's own code.
///
/// `catch_unwind` would do the same, but through a function pointer: the closure would be another part of the program,
/// which each child would have to map.
struct Barrier;

impl Drop for Barrier {
    fn drop(&mut self) {
        exit_now(PANICKED);
    }
}

/// The descriptor that every child keeps, or -1.
static ALSO_KEPT: AtomicI32 = AtomicI32::new(-1);

/// Lets every child keep this descriptor, too: the log's. It must stay open.
pub fn always_keep(fd: Option<BorrowedFd<'_>>) {
    ALSO_KEPT.store(fd.map_or(-1, |fd| fd.as_raw_fd()), Ordering::Relaxed);
}

/// Closes every descriptor above 2 that is neither in `kept` nor in `own`, both in ascending order. Close-on-exec does
/// not help a child that never calls exec.
#[inline(always)]
fn close_others(kept: &Kept, own: &[RawFd]) -> io::Result<()> {
    let kept = kept.ascending.as_slice();
    let (below, above) = match own {
        [own, ..] => kept.split_at(kept.partition_point(|fd| fd < own)),
        [] => (kept, own),
    };
    let mut first = 3;
    for fd in [below, own, above]
        .into_iter()
        .flatten()
        .filter(|fd| **fd > 2)
    {
        close_range(first, fd - 1)?;
        first = fd + 1;
    }
    close_range(first, RawFd::MAX)
}

#[inline(always)]
fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: closes descriptors by number only. Their owners in this copy of the parent's memory are never used
    // again, nor dropped: the child runs nothing of the parent's and leaves through _exit.
    match result(unsafe { syscall!(Sysno::close_range, first, last, 0) }) {
        Ok(_) => Ok(()),
        // Linux before 5.9 does not have it, and profiles of containers that are older than it deny it.
        Err(Errno::ENOSYS | Errno::EPERM) => close_each(first, last),
        Err(error) => Err(error.into()),
    }
}

/// The same without close_range(2): what /proc says is open, or everything up to the limit.
#[cold]
fn close_each(first: RawFd, last: RawFd) -> io::Result<()> {
    let range = first..=last;
    let descriptors = match open_descriptors() {
        Ok(open) => open,
        Err(_) => {
            let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
            let limit = RawFd::try_from(limit).unwrap_or(RawFd::MAX);
            (first..limit.min(last.saturating_add(1))).collect()
        }
    };
    for fd in descriptors.into_iter().filter(|fd| range.contains(fd)) {
        // SAFETY: as above. One that is not open is no harm.
        let _ = unsafe { syscall!(Sysno::close, fd) };
    }
    Ok(())
}

fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let entries = std::fs::read_dir("/proc/self/fd")?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

/// The number of threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Fails if this process has more than one thread. Checked once before a loop that forks.
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

/// Reseeds the random number generator of this process, whose state a fork copies.
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
