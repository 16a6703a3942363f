//! Inline system calls, without the C library.
//!
//! A process that was just forked takes a page fault for each part of the program that it reaches (usually 64 KiB), and
//! unmaps it at its end: each makes a fork a few per cent more expensive. Where a child that serves one connection
//! makes a system call, it is therefore compiled into the caller. It also leaves `errno` alone, whose page would have
//! to be copied.

use nix::errno::Errno;
pub(super) use syscalls::{Sysno, syscall};

/// Converts the kernel's return value.
#[inline(always)]
pub(super) fn result(result: Result<usize, syscalls::Errno>) -> Result<usize, Errno> {
    match result {
        Ok(value) => Ok(value),
        // The common ones need no table.
        Err(syscalls::Errno::EAGAIN) => Err(Errno::EAGAIN),
        Err(syscalls::Errno::EINTR) => Err(Errno::EINTR),
        Err(syscalls::Errno::ECHILD) => Err(Errno::ECHILD),
        Err(error) => Err(Errno::from_raw(error.into_raw())),
    }
}
