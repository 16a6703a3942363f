//! seccomp: which system calls a process may make, a list for each role.
//!
//! A call on the list is made. One that opens or looks for a file by its name, which a C library may try by itself, is
//! answered with an error (a role that needs files has Landlock to say which). All else no sound process of this program
//! ever does: it ends with SIGSYS, is counted as crashed, and logged.
//!
//! The filter is inherited, so that a connection does not pay for its making. What it costs each system call is little:
//! the kernel keeps a table of the calls that are allowed whatever their arguments are.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule,
};

use super::Role;
use crate::sys;

/// What every process does: memory, time, its descriptors, its end.
const ALWAYS: &[c_long] = &[
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

/// What of that only some architectures have.
#[cfg(target_arch = "x86_64")]
const ALWAYS_OLD: &[c_long] = &[
    libc::SYS_poll,
    libc::SYS_dup2,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_OLD: &[c_long] = &[];

/// What threads need beside that. (clone(2) is among the calls with conditions.)
const THREADS: &[c_long] = &[
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_membarrier,
];

/// What a loop with children needs.
const CHILDREN: &[c_long] = &[
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
const CHILDREN_OLD: &[c_long] = &[libc::SYS_fork];
#[cfg(not(target_arch = "x86_64"))]
const CHILDREN_OLD: &[c_long] = &[];

/// What a connection needs once it is there.
const TALK: &[c_long] = &[
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
];

/// What a server needs beside that: to accept, to send files, to wait for many, and timers.
const SERVE: &[c_long] = &[
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
const SERVE_OLD: &[c_long] = &[libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
const SERVE_OLD: &[c_long] = &[];

/// What writes a data file.
const WRITE: &[c_long] = &[
    libc::SYS_pwrite64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
];

/// What gives files their names.
const NAME: &[c_long] = &[
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_getdents64,
    libc::SYS_umask,
];
#[cfg(target_arch = "x86_64")]
const NAME_OLD: &[c_long] = &[libc::SYS_rename, libc::SYS_link, libc::SYS_unlink];
#[cfg(not(target_arch = "x86_64"))]
const NAME_OLD: &[c_long] = &[];

/// What opens or looks for a file by its name.
const FIND: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
];
#[cfg(target_arch = "x86_64")]
const FIND_OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
];
#[cfg(not(target_arch = "x86_64"))]
const FIND_OLD: &[c_long] = &[];

/// Namespaces, which nobody here needs.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;
/// Set for a thread, clear for a process.
const THREAD: u64 = libc::CLONE_THREAD as u64;
const EXECUTE: u64 = libc::PROT_EXEC as u64;
const WRITE_OR_EXECUTE: u64 = (libc::PROT_WRITE | libc::PROT_EXEC) as u64;
/// The type of a socket, without its flags.
const SOCKET_TYPE: u64 = 0xf;

/// The lists of a role.
struct Lists {
    allowed: BTreeMap<i64, Vec<SeccompRule>>,
}

/// Puts this process and all that it will fork under the filters of the role.
///
/// # Errors
/// Where the architecture is not known, or as seccomp(2).
pub fn filter(role: Role<'_>) -> anyhow::Result<()> {
    let Lists { allowed } = lists(role)?;
    let finds_files = matches!(
        role,
        Role::Downloader { .. } | Role::Outside { .. } | Role::Reader
    );
    let of = |calls: &[&[c_long]]| -> BTreeMap<i64, Vec<SeccompRule>> {
        let calls = calls.iter().copied().flatten();
        calls.map(|call| (*call, Vec::new())).collect()
    };
    if !finds_files {
        install(
            of(&[FIND, FIND_OLD]),
            SeccompAction::Errno(libc::EACCES as u32),
            false,
        )?;
    }
    // Its flags lie in memory, where no filter sees them; the C library then takes clone(2).
    install(
        of(&[&[libc::SYS_clone3]]),
        SeccompAction::Errno(libc::ENOSYS as u32),
        false,
    )?;
    // A worker is under the filters of its downloader already, which refuse a new one nothing.
    install(allowed, SeccompAction::KillProcess, true)
}

/// A filter that lets the calls pass and does `action` with all others; or with the calls, and lets the others pass.
fn install(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    action: SeccompAction,
    pass: bool,
) -> anyhow::Result<()> {
    let (others, calls_do) = match pass {
        true => (action, SeccompAction::Allow),
        false => (SeccompAction::Allow, action),
    };
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(calls, others, calls_do, architecture)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(sys::seccomp::install(&program)?)
}

fn lists(role: Role<'_>) -> anyhow::Result<Lists> {
    let mut lists = Lists {
        allowed: BTreeMap::new(),
    };
    // Those that the first filters answer must pass this one.
    lists.allow_all(&[ALWAYS, ALWAYS_OLD, FIND, FIND_OLD, &[libc::SYS_clone3]]);
    match role {
        Role::Server { threads, tables } => {
            if tables {
                lists.allow(&[libc::SYS_memfd_create, libc::SYS_ftruncate]);
            }
            lists.allow_all(&[TALK, SERVE, SERVE_OLD]);
            if threads {
                lists.allow(THREADS);
                lists.threads()?;
            }
            // Models that serve in threads fork nothing, but are one list with those that have their signals.
            lists.allow_all(&[CHILDREN, CHILDREN_OLD]);
            if !threads {
                lists.processes()?;
            }
        }
        Role::Announcer { .. } => {
            lists.allow(TALK);
            lists.connect()?;
            lists.alone()?;
        }
        Role::Verifier => {
            lists.allow(THREADS);
            lists.threads()?;
        }
        Role::Downloader { .. } => {
            lists.allow_all(&[TALK, CHILDREN, CHILDREN_OLD, WRITE, NAME, NAME_OLD]);
            // Whether there is room for the file.
            lists.allow(&[libc::SYS_fstatfs]);
            lists.connect()?;
            lists.processes()?;
            // For its workers, that they may confine themselves.
            lists.confine_further();
        }
        Role::Worker { .. } => {
            lists.allow_all(&[TALK, WRITE]);
            lists.connect()?;
            lists.alone()?;
        }
        Role::Hasher => {
            lists.allow(TALK);
            lists.alone()?;
        }
        Role::Reader => {
            lists.allow_all(&[TALK, &[libc::SYS_sendmsg, libc::SYS_memfd_create]]);
            lists.alone()?;
        }
        Role::Outside { .. } => {
            lists.allow_all(&[TALK, WRITE, NAME, NAME_OLD]);
            lists.alone()?;
        }
    }
    lists.conditions(role)?;
    Ok(lists)
}

impl Lists {
    fn allow(&mut self, calls: &[c_long]) {
        self.allowed
            .extend(calls.iter().map(|call| (*call, Vec::new())));
    }

    fn allow_all(&mut self, groups: &[&[c_long]]) {
        groups.iter().for_each(|calls| self.allow(calls));
    }

    /// Allows a call where all of these arguments are as they should be: an argument's number, and what it must be. Said
    /// again, one of both is enough.
    fn allow_where(
        &mut self,
        call: c_long,
        conditions: &[(u8, SeccompCmpOp, u64)],
    ) -> anyhow::Result<()> {
        let conditions = conditions.iter().map(|(argument, operator, value)| {
            // Flags of 64 bits are looked at as a whole: what is above is nothing that is meant.
            let width = match operator {
                SeccompCmpOp::MaskedEq(_) => Qword,
                _ => Dword,
            };
            SeccompCondition::new(*argument, width, operator.clone(), *value)
        });
        let rule = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?;
        self.allowed.entry(call).or_default().push(rule);
        Ok(())
    }

    /// Memory that is neither executed nor, once it is read-only, written again: the tables that a process may only read
    /// stay so.
    fn alone(&mut self) -> anyhow::Result<()> {
        self.allow_where(
            libc::SYS_mprotect,
            &[(2, SeccompCmpOp::MaskedEq(WRITE_OR_EXECUTE), 0)],
        )
    }

    /// The same with children, which are processes.
    fn processes(&mut self) -> anyhow::Result<()> {
        self.alone()?;
        self.allow_where(
            libc::SYS_clone,
            &[(0, SeccompCmpOp::MaskedEq(NAMESPACES | THREAD), 0)],
        )
    }

    /// Threads: the C library makes the memory of their stacks and heaps writable bit by bit.
    fn threads(&mut self) -> anyhow::Result<()> {
        self.allow_where(
            libc::SYS_mprotect,
            &[(2, SeccompCmpOp::MaskedEq(EXECUTE), 0)],
        )?;
        self.allow_where(
            libc::SYS_clone,
            &[(0, SeccompCmpOp::MaskedEq(NAMESPACES | THREAD), THREAD)],
        )
    }

    /// TCP, and no other socket.
    fn connect(&mut self) -> anyhow::Result<()> {
        self.allow(&[libc::SYS_connect]);
        for family in [libc::AF_INET, libc::AF_INET6] {
            self.allow_where(
                libc::SYS_socket,
                &[
                    (0, SeccompCmpOp::Eq, family as u64),
                    (
                        1,
                        SeccompCmpOp::MaskedEq(SOCKET_TYPE),
                        libc::SOCK_STREAM as u64,
                    ),
                ],
            )?;
        }
        Ok(())
    }

    fn confine_further(&mut self) {
        self.allow(&[
            libc::SYS_seccomp,
            libc::SYS_prctl,
            libc::SYS_prlimit64,
            libc::SYS_landlock_create_ruleset,
            libc::SYS_landlock_add_rule,
            libc::SYS_landlock_restrict_self,
        ]);
    }

    /// Calls of every role whose arguments matter.
    fn conditions(&mut self, role: Role<'_>) -> anyhow::Result<()> {
        let mut one_of = |call, argument, values: &[i32]| -> anyhow::Result<()> {
            // A call that is allowed already, whatever its arguments are, stays so.
            if self.allowed.get(&call).is_some_and(Vec::is_empty) {
                return Ok(());
            }
            values.iter().try_for_each(|value| {
                self.allow_where(call, &[(argument, SeccompCmpOp::Eq, *value as u32 as u64)])
            })
        };
        one_of(
            libc::SYS_madvise,
            2,
            // MADV_REMOVE would empty shared memory that is only read. The last is the guard of a stack.
            &[
                libc::MADV_NORMAL,
                libc::MADV_DONTNEED,
                libc::MADV_FREE,
                libc::MADV_DONTFORK,
                GUARD,
            ],
        )?;
        one_of(
            libc::SYS_fcntl,
            1,
            &[
                libc::F_GETFD,
                libc::F_SETFD,
                libc::F_GETFL,
                libc::F_SETFL,
                libc::F_DUPFD_CLOEXEC,
                libc::F_SETPIPE_SZ,
                // Of memory that is handed over, or made anew.
                libc::F_ADD_SEALS,
                libc::F_GET_SEALS,
                // The lock of a data file, which is looked at where it is written.
                libc::F_SETLK,
            ],
        )?;
        one_of(
            libc::SYS_ioctl,
            1,
            &[
                libc::FIONBIO as i32,
                libc::FIONREAD as i32,
                libc::TCGETS as i32,
            ],
        )?;
        one_of(
            libc::SYS_prctl,
            0,
            &[
                libc::PR_SET_PDEATHSIG,
                libc::PR_GET_PDEATHSIG,
                libc::PR_SET_NAME,
                libc::PR_GET_NAME,
            ],
        )?;
        // Limits may be looked at: there is no new one.
        if !self.allowed.contains_key(&libc::SYS_prlimit64) {
            self.allow_where(
                libc::SYS_prlimit64,
                &[(2, SeccompCmpOp::MaskedEq(u64::MAX), 0)],
            )?;
        }
        // What is shared with a process of one's own, and nothing that is executed.
        self.allow_where(libc::SYS_mmap, &[(2, SeccompCmpOp::MaskedEq(EXECUTE), 0)])?;
        if let Role::Server { .. } | Role::Downloader { .. } = role {
            self.allow_where(
                libc::SYS_socketpair,
                &[(0, SeccompCmpOp::Eq, libc::AF_UNIX as u64)],
            )?;
        }
        Ok(())
    }
}

/// `MADV_GUARD_INSTALL`, which the crate libc does not name yet.
const GUARD: i32 = 102;
