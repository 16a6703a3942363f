//! The command of `--exec`: what it is given, and how.
//!
//! The command is the user's own, and is passed to the shell as it is. What strangers chose, a file's name and hash, is
//! passed in the environment and never in the command's text, so that no name can be a command.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::absolute;
use std::process::{Command, Stdio};

use nix::unistd::Pid;

use super::item::Item;
use crate::daemon::manager;
use crate::sys::exec::as_inherited;

/// The path of the data file, absolute: a name that begins with a dash is no option.
const FILE: &str = "CASCADE_FILE";
/// The cascade hash.
const HASH: &str = "CASCADE_HASH";

/// Starts the command for a file that is complete. Where standard output is for events, its output goes to standard
/// error.
///
/// # Errors
/// As fork(2) and exec(3).
pub fn start(command: &OsStr, item: &Item, events: bool) -> io::Result<Pid> {
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg(command)
        .env(FILE, absolute(item.data.path())?)
        .env(HASH, item.hash.to_string())
        // It has no sockets to take over, and nothing to tell a manager.
        .stdin(Stdio::null());
    manager::VARIABLES
        .iter()
        .for_each(|name| _ = shell.env_remove(name));
    if events {
        shell.stdout(io::stderr().as_fd().try_clone_to_owned()?);
    }
    // The supervisor reaps whatever ends, this too.
    let child = as_inherited(&mut shell).spawn()?;
    Ok(Pid::from_raw(child.id() as i32))
}
