//! System calls, grouped by purpose. The module above has the conditions on arguments.

use libc::c_long;

/// What every process needs: memory, time, its descriptors, exit.
pub const ALWAYS: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // abort(3), and a process that ends of the signal that it was asked to end by.
    libc::SYS_tgkill,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_uname,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Those of them that only some architectures have.
#[cfg(target_arch = "x86_64")]
pub const ALWAYS_OLD: &[c_long] = &[
    libc::SYS_poll,
    libc::SYS_dup2,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
pub const ALWAYS_OLD: &[c_long] = &[];

/// What threads need in addition. (clone(2) is among the calls with conditions.)
pub const THREADS: &[c_long] = &[
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_membarrier,
];

/// What a loop with children needs.
pub const CHILDREN: &[c_long] = &[
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_kill,
    libc::SYS_signalfd4,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_recvmsg,
];
#[cfg(target_arch = "x86_64")]
pub const CHILDREN_OLD: &[c_long] = &[libc::SYS_fork];
#[cfg(not(target_arch = "x86_64"))]
pub const CHILDREN_OLD: &[c_long] = &[];

/// What an established connection needs.
pub const TALK: &[c_long] = &[
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
];

/// What a server needs in addition: accept, sendfile, epoll, timers.
pub const SERVE: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendfile,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_setitimer,
    libc::SYS_getitimer,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
];
#[cfg(target_arch = "x86_64")]
pub const SERVE_OLD: &[c_long] = &[libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
pub const SERVE_OLD: &[c_long] = &[];

/// What writes a data file.
pub const WRITE: &[c_long] = &[
    libc::SYS_pwrite64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
];

/// What gives files their names.
pub const NAME: &[c_long] = &[
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_getdents64,
    libc::SYS_umask,
];
#[cfg(target_arch = "x86_64")]
pub const NAME_OLD: &[c_long] = &[libc::SYS_rename, libc::SYS_link, libc::SYS_unlink];
#[cfg(not(target_arch = "x86_64"))]
pub const NAME_OLD: &[c_long] = &[];

/// What opens or looks for a file by its name.
pub const FIND: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
];
#[cfg(target_arch = "x86_64")]
pub const FIND_OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
];
#[cfg(not(target_arch = "x86_64"))]
pub const FIND_OLD: &[c_long] = &[];
