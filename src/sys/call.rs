//! System calls in place: without a function of the C library.
//!
//! A process that was just forked has to map each part of the program that it comes to (64 KiB, mostly), and to unmap it at
//! its end: a fork costs a few per cent more for each. Where a child that serves one connection asks the system for
//! something, this is compiled into what asks. It also leaves `errno` alone, whose page would have to be copied.

use nix::errno::Errno;
pub(super) use syscalls::{Sysno, syscall};

/// What a system call came to.
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
