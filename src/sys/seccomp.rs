//! seccomp(2): filters of system calls.

use std::io;

use nix::errno::Errno;
use seccompiler::sock_filter;

/// The argument of seccomp(2) (`sock_fprog`).
#[repr(C)]
struct Program {
    length: libc::c_ushort,
    instructions: *const sock_filter,
}

/// Whether the kernel supports filters that kill a process.
pub fn is_available() -> bool {
    let action: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the operation reads a number, which outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    result == 0
}

/// Installs a filter for this single-threaded process and its future children, irrevocably. It must have `no_new_privs`
/// set.
///
/// It does not enable mitigations of speculative execution beyond the machine's defaults
/// (`SECCOMP_FILTER_FLAG_SPEC_ALLOW`): they would slow down a process that has no secrets but its own.
///
/// # Errors
/// As seccomp(2).
pub fn install(instructions: &[sock_filter]) -> io::Result<()> {
    let program = Program {
        length: instructions
            .len()
            .try_into()
            .map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: instructions.as_ptr(),
    };
    let install = |flags: libc::c_ulong| {
        // SAFETY: the system copies the program, which outlives the call.
        Errno::result(unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        })
    };
    // Before Linux 4.17 there is no such flag.
    install(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW).or_else(|error| match error {
        Errno::EINVAL => install(0),
        error => Err(error),
    })?;
    Ok(())
}
