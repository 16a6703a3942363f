//! Commands that this program runs for its user: they begin as this program did.
//!
//! This program blocks signals to read them from a descriptor, ignores some and handles another, and raises its limit
//! on descriptors. A command would inherit what is ignored or blocked, and the limit. Descriptors need no care: all of
//! them close on exec.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::inherited;

/// Starts the command with the signals and limits that this program was started with.
pub fn as_inherited(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec the closure makes system calls that are safe there, and allocates nothing.
    unsafe { command.pre_exec(inherited::give_back) }
}
