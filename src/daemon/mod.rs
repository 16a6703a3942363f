//! Manners of a process that runs until a signal: how it gets on with what started it.
//!
//! | module | what it is |
//! |---|---|
//! | [`inetd`] | a connection that somebody else accepted |
//! | [`manager`] | the service manager that waits to hear from it |
//! | [`pidfile`] | the file that names the process, and that only one process can have |
//! | [`sockets`] | where it listens: on sockets of its own, or on those that were passed to it |

pub mod inetd;
pub mod manager;
pub mod pidfile;
pub mod sockets;

use crate::cli::LogOptions;
use crate::logging;

/// Lets the log be as these options say, and those that are short for a level.
pub fn log_as(options: LogOptions, verbose: bool, quiet: bool) {
    logging::set_format(options.log_format);
    logging::set_level(options.log_level);
    logging::set_verbose(verbose);
    logging::set_quiet(quiet);
}
