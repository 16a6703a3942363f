//! `cascade peer`: serves files and downloads what is missing of them, until a signal.

use std::time::Duration;

use super::get::{specify, trackers};
use super::limits::limits_with_pool;
use super::{Status, UsageError};
use crate::cli::{self, Wanted};
use crate::confine::Confinement;
use crate::daemon::{self, pidfile};
use crate::net::address::ListenAddress;
use crate::node::{self, End, Settings};
use crate::server::Limits;

/// Runs the peer; a signal that stops it is what it was waiting for.
///
/// # Errors
/// Where it cannot begin.
pub fn run(mut options: cli::Peer) -> anyhow::Result<Status> {
    let (verbose, quiet) = (options.sources.verbose, options.reporting.quiet);
    daemon::log_as(options.daemon.log, verbose, quiet);
    options.sources.tracker = trackers(options.sources.tracker, &options.files)?;
    if options
        .files
        .iter()
        .any(|file| matches!(file, Wanted::Hash(_)))
    {
        return Err(UsageError("a hash alone has no name: use a link, or a cascade file").into());
    }
    let listen = if options.listen.is_empty() {
        vec![ListenAddress::any(0)]
    } else {
        options.listen
    };
    let confinement = Confinement::new(&options.confine)?;
    let _pidfile = pidfile::hold(options.daemon.pidfile.as_deref(), &confinement)?;
    let settings = Settings {
        confinement,
        files: specify(&options.files, options.directory.as_deref(), None)?,
        watch: options.directory.filter(|_| options.watch_dir),
        sources: options.sources,
        reporting: options.reporting,
        listen: Some(listen),
        model: options.server.model,
        limits: limits_with_pool(Limits::default(), &options.limits, options.server.pool),
        daemon: true,
        seed_only: false,
        told: None,
        witnessed: false,
        seed_for: Duration::ZERO,
        timeout: None,
    };
    match node::run(settings)? {
        End::Status(status) => Ok(status),
        End::Signal(_) => Ok(Status::Done),
    }
}
