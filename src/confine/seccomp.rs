//! seccomp: an allow-list of system calls for each role.
//!
//! Calls on the list are allowed. A call that opens or looks up a file by name, which the C library may make by itself,
//! fails with an error (Landlock restricts the roles that need files). Any other call is one that a healthy process of
//! this program never makes: it kills the process with SIGSYS, which counts as a crash and is logged.
//!
//! Children inherit the filter, so no connection pays for building it. The cost for each system call is small: the
//! kernel caches which calls are allowed whatever their arguments.

mod calls;
mod lists;

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpOp, SeccompFilter, SeccompRule};

use super::Role;
use crate::sys;
use calls::*;
use lists::Lists;

/// Installs the role's filters for this process and its future children.
///
/// # Errors
/// Where the architecture is not known, or as seccomp(2).
pub fn filter(role: Role<'_>) -> anyhow::Result<()> {
    let Lists { allowed } = lists(role)?;
    let finds_files = matches!(
        role,
        Role::Downloader { .. } | Role::Outside { .. } | Role::Reader | Role::Reporter { .. }
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

/// A filter that allows the listed calls and applies `action` to all others; or the other way round.
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
    let mut lists = Lists::default();
    // Those that the first filters answer must pass this one.
    lists.allow_all(&[ALWAYS, ALWAYS_OLD, FIND, FIND_OLD, &[libc::SYS_clone3]]);
    match role {
        Role::Server {
            threads,
            tables,
            tells,
        } => {
            if tables {
                lists.allow(&[libc::SYS_memfd_create, libc::SYS_ftruncate]);
            }
            if let Some(fd) = tells {
                // A child has no socket with this number that takes descriptors.
                lists.allow_where(libc::SYS_sendmsg, &[(0, SeccompCmpOp::Eq, fd as u64)])?;
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
        Role::Announcer { .. } | Role::Asker { .. } => {
            lists.allow(TALK);
            lists.connect()?;
            lists.alone()?;
        }
        Role::Verifier { writes } => {
            lists.allow(THREADS);
            if writes {
                lists.allow(WRITE);
                lists.allow(&[libc::SYS_copy_file_range]);
            }
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
        Role::Reporter { asks, .. } => {
            // For those that it starts, that they may be what they are and confine themselves.
            lists.allow_all(&[TALK, SERVE, SERVE_OLD, CHILDREN, CHILDREN_OLD]);
            // What it is handed it leaves to its successor.
            lists.allow(&[libc::SYS_unlinkat, libc::SYS_sendmsg]);
            if asks {
                lists.connect()?;
            }
            lists.processes()?;
            lists.confine_further();
        }
        Role::Surveyor => {
            lists.allow_all(&[TALK, CHILDREN, CHILDREN_OLD]);
            lists.connect()?;
            lists.processes()?;
            // For its children, that they may confine themselves.
            lists.confine_further();
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
