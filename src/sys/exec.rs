//! Default signal handling for commands that this program runs for its user.
//!
//! This program blocks signals to read them from a descriptor, ignores some and handles another. A command would
//! inherit what is ignored or blocked. Descriptors need no care: all of them close on exec.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Starts the command with all signals unblocked and at their default dispositions.
pub fn with_default_signals(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec the closure makes system calls that are safe there, and allocates nothing.
    unsafe { command.pre_exec(default_signals) }
}

fn default_signals() -> io::Result<()> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    let fixed = [Signal::SIGKILL, Signal::SIGSTOP];
    for signal in Signal::iterator().filter(|signal| !fixed.contains(signal)) {
        // SAFETY: the default effect is no handler.
        unsafe { sigaction(signal, &action) }?;
    }
    // After that: what was pending for this process has its default effect.
    SigSet::empty().thread_set_mask()?;
    Ok(())
}
