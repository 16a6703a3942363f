//! Building a role's allow-list: system calls, and conditions on their arguments.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp, SeccompCondition, SeccompRule,
};

use crate::confine::Role;

/// Namespaces, which no role needs.
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
/// `MADV_GUARD_INSTALL`, which the crate libc does not name yet.
const GUARD: i32 = 102;

/// The calls that a role may make; for those with conditions, any one of which must hold.
#[derive(Debug, Default)]
pub struct Lists {
    pub allowed: BTreeMap<i64, Vec<SeccompRule>>,
}

impl Lists {
    pub fn allow(&mut self, calls: &[c_long]) {
        self.allowed
            .extend(calls.iter().map(|call| (*call, Vec::new())));
    }

    pub fn allow_all(&mut self, groups: &[&[c_long]]) {
        groups.iter().for_each(|calls| self.allow(calls));
    }

    /// Allows a call if all of these arguments (by index) have the required values. Several such rules for a call are
    /// alternatives.
    pub fn allow_where(
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

    /// Memory that is never executable, and never writable again once it is read-only: so tables that a process may
    /// only read stay so.
    pub fn alone(&mut self) -> anyhow::Result<()> {
        self.allow_where(
            libc::SYS_mprotect,
            &[(2, SeccompCmpOp::MaskedEq(WRITE_OR_EXECUTE), 0)],
        )
    }

    /// The same with children, which are processes.
    pub fn processes(&mut self) -> anyhow::Result<()> {
        self.alone()?;
        self.allow_where(
            libc::SYS_clone,
            &[(0, SeccompCmpOp::MaskedEq(NAMESPACES | THREAD), 0)],
        )
    }

    /// Threads: the C library makes the memory of their stacks and heaps writable bit by bit.
    pub fn threads(&mut self) -> anyhow::Result<()> {
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
    pub fn connect(&mut self) -> anyhow::Result<()> {
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

    pub fn confine_further(&mut self) {
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
    pub fn conditions(&mut self, role: Role<'_>) -> anyhow::Result<()> {
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
        if let Role::Server { .. } | Role::Downloader { .. } | Role::Reporter { .. } = role {
            self.allow_where(
                libc::SYS_socketpair,
                &[(0, SeccompCmpOp::Eq, libc::AF_UNIX as u64)],
            )?;
        }
        Ok(())
    }
}
