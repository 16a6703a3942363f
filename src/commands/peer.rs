//! `cascade peer`: serves files and downloads what is missing of them, until a signal.

use std::time::Duration;

use super::Status;
use super::environment::or_environment;
use super::get::with_data_paths;
use crate::cli;
use crate::logging;
use crate::net::address::ListenAddress;
use crate::node::{self, End, Settings};

/// Runs the peer; a signal that stops it is what it was waiting for.
///
/// # Errors
/// Where it cannot begin.
pub fn run(mut options: cli::Peer) -> anyhow::Result<Status> {
    logging::set_verbose(options.sources.verbose);
    options.sources.tracker = or_environment(options.sources.tracker)?;
    let listen = if options.listen.is_empty() {
        vec![ListenAddress::any(0)]
    } else {
        options.listen
    };
    let settings = Settings {
        files: with_data_paths(&options.files, options.directory.as_deref(), None)?,
        sources: options.sources,
        listen: Some(listen),
        server: options.server,
        daemon: true,
        seed_for: Duration::ZERO,
        timeout: None,
    };
    match node::run(&settings)? {
        End::Status(status) => Ok(status),
        End::Signal(_) => Ok(Status::Done),
    }
}
