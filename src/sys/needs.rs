//! System calls that nothing can replace: whether this system has them, asked before anything begins.
//!
//! Old kernels lack some, and profiles of containers deny others, with ENOSYS or EPERM. Found out later, that would be
//! a process that dies without a word, or one that waits for ever. docs/SYSTEM-CALLS.md lists them, and what stands in
//! for others.

use std::fmt;

use nix::errno::Errno;
use nix::unistd::getpid;

/// A system call that is missing or denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    call: &'static str,
    error: Errno,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, error } = self;
        let reason = error.desc();
        write!(
            f,
            "this system denies {call}(2), which is needed: {reason}; a newer kernel, or another seccomp profile of the container, allows it"
        )
    }
}

impl std::error::Error for Denied {}

/// A call and arguments with which it does nothing: most of them are an error that is told from a denial.
type Probe = (&'static str, libc::c_long, [libc::c_long; 4]);

/// What the runtime takes before `main`: without that it aborts, and says nothing that helps.
const RUNTIME: &[Probe] = &[
    POLL,
    ("rt_sigaction", libc::SYS_rt_sigaction, [CHLD, 0, 0, 8]),
];
/// Other architectures have ppoll(2) only.
#[cfg(target_arch = "x86_64")]
const POLL: Probe = ("poll", libc::SYS_poll, [0, 0, 0, 0]);
#[cfg(not(target_arch = "x86_64"))]
const POLL: Probe = ("ppoll", libc::SYS_ppoll, [0, -1, 0, 0]);
const CHLD: libc::c_long = libc::SIGCHLD as libc::c_long;

/// What every command takes.
pub const ALL: &[Probe] = &[
    ("futex", libc::SYS_futex, [0, WAKE, 0, 0]),
    ("getrandom", libc::SYS_getrandom, [0, 0, 0, 0]),
];
const WAKE: libc::c_long = libc::FUTEX_WAKE as libc::c_long;

/// What it takes to run processes that talk to each other and to the network.
pub const ROLES: &[Probe] = &[
    ("prctl", libc::SYS_prctl, [-1, 0, 0, 0]),
    ("getpid", libc::SYS_getpid, [0; 4]),
    ("getppid", libc::SYS_getppid, [0; 4]),
    ("rt_sigprocmask", libc::SYS_rt_sigprocmask, [0, 0, 0, 8]),
    ("signalfd4", libc::SYS_signalfd4, [-1, 0, 0, 0]),
    // No such option, so that nothing is reaped.
    ("wait4", libc::SYS_wait4, [-1, 0, 0x4000_0000, 0]),
    ("pipe2", libc::SYS_pipe2, [0, -1, 0, 0]),
    ("eventfd2", libc::SYS_eventfd2, [0, -1, 0, 0]),
    ("fcntl", libc::SYS_fcntl, [-1, libc::F_GETFL as _, 0, 0]),
    ("ioctl", libc::SYS_ioctl, [-1, 0, 0, 0]),
    ("clock_nanosleep", libc::SYS_clock_nanosleep, [-1, 0, 0, 0]),
    ("madvise", libc::SYS_madvise, [0, 0, -1, 0]),
    ("mprotect", libc::SYS_mprotect, [0, 0, -1, 0]),
    ("ppoll", libc::SYS_ppoll, [0, -1, 0, 0]),
    ("socketpair", libc::SYS_socketpair, [-1, 0, 0, 0]),
    ("socket", libc::SYS_socket, [-1, 0, 0, 0]),
    ("connect", libc::SYS_connect, [-1, 0, 0, 0]),
    ("bind", libc::SYS_bind, [-1, 0, 0, 0]),
    ("listen", libc::SYS_listen, [-1, 0, 0, 0]),
    ("accept4", libc::SYS_accept4, [-1, 0, 0, 0]),
    ("getsockname", libc::SYS_getsockname, [-1, 0, 0, 0]),
    ("getsockopt", libc::SYS_getsockopt, [-1, 0, 0, 0]),
    ("setsockopt", libc::SYS_setsockopt, [-1, 0, 0, 0]),
    ("sendto", libc::SYS_sendto, [-1, 0, 0, 0]),
    ("recvfrom", libc::SYS_recvfrom, [-1, 0, 0, 0]),
    ("sendmsg", libc::SYS_sendmsg, [-1, 0, 0, 0]),
    ("recvmsg", libc::SYS_recvmsg, [-1, 0, 0, 0]),
    ("shutdown", libc::SYS_shutdown, [-1, 0, 0, 0]),
];

/// What a tracker's registry takes in addition: memory that is handed to processes which were started before.
pub const REGISTRY: &[Probe] = &[
    ("memfd_create", libc::SYS_memfd_create, [0, -1, 0, 0]),
    ("ftruncate", libc::SYS_ftruncate, [-1, 0, 0, 0]),
];

/// What the event model takes in addition.
pub const EVENTS: &[Probe] = &[
    ("epoll_create1", libc::SYS_epoll_create1, [-1, 0, 0, 0]),
    ("epoll_ctl", libc::SYS_epoll_ctl, [-1, -1, -1, 0]),
    ("epoll_pwait", libc::SYS_epoll_pwait, [-1, 0, 0, 0]),
];

/// Ends the program where the runtime could not start. Runs before it, and is safe there: it makes system calls and
/// allocates memory.
pub(super) fn check_before_main() {
    if let Err(denied) = RUNTIME.iter().try_for_each(ask) {
        let line = format!("cascade: cannot begin: {denied}\n");
        let stderr = std::mem::ManuallyDrop::new(std::io::stderr());
        let _ = nix::unistd::write(&*stderr, line.as_bytes());
        super::exit::exit_now(1);
    }
}

/// Fails where one of these calls is missing or denied.
///
/// # Errors
/// With its name.
pub fn check(probes: &[Probe]) -> Result<(), Denied> {
    let pid = libc::c_long::from(getpid().as_raw());
    let signals_itself: Probe = ("kill", libc::SYS_kill, [pid, 0, 0, 0]);
    [signals_itself].iter().chain(probes).try_for_each(ask)
}

fn ask((call, number, [a, b, c, d]): &Probe) -> Result<(), Denied> {
    // SAFETY: the arguments are no descriptors, no pointers and no flags that the call knows, so it changes nothing and
    // writes to no memory.
    let result = unsafe { libc::syscall(*number, *a, *b, *c, *d, 0, 0) };
    match Errno::result(result) {
        Err(error @ (Errno::ENOSYS | Errno::EPERM)) => Err(Denied { call, error }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_system_has_all_of_them() {
        for probes in [RUNTIME, ALL, ROLES, REGISTRY, EVENTS] {
            assert_eq!(check(probes), Ok(()));
        }
    }

    #[test]
    fn a_call_that_is_missing_is_named() {
        let denied = check(&[("nothing", -1, [0; 4])]).expect_err("there is no such call");
        let said = denied.to_string();
        assert!(said.starts_with("this system denies nothing(2)"), "{said}");
    }
}
