//! `cascade peer`: serves files and downloads what is missing of them, until a signal.

mod single;

use std::rc::Rc;
use std::time::Duration;

use super::get::{specify, trackers};
use super::limits::limits_with_pool;
use super::{Status, UsageError, files, print};
use crate::cli::{self, Wanted};
use crate::config;
use crate::config::changes::Said;
use crate::confine::Confinement;
use crate::daemon::manager::Manager;
use crate::daemon::sockets::Listen;
use crate::daemon::{self, pidfile};
use crate::events::Events;
use crate::net::address::ListenAddress;
use crate::net::resolve;
use crate::node::vitals::Vitals;
use crate::node::{self, End, FileList, ReadList, Settings};
use crate::server::Limits;
use crate::store::open_data;
use crate::text::count;

/// What of the configuration is followed at once when it is read again.
const AT_ONCE: [&str; 3] = ["files", "watch-dir", "directory"];

/// Runs the peer; a signal that stops it is what it was waiting for.
///
/// # Errors
/// Where it cannot begin.
pub fn run(options: cli::Peer, said: Said) -> anyhow::Result<Status> {
    let (verbose, quiet) = (options.sources.verbose, options.reporting.quiet);
    daemon::log_as(options.daemon.log, verbose, quiet);
    let (is_checked, is_single) = (options.config.check, options.daemon.inetd);
    let pidfile = options.daemon.pidfile.clone();
    let settings = settings(options, said)?;
    files::check_places(pidfile.iter().chain(&settings.control))?;
    if is_checked {
        return check(&settings);
    }
    if is_single {
        return single::serve(&settings);
    }
    let _pidfile = pidfile::hold(pidfile.as_deref(), &settings.confinement)?;
    match node::run(settings)? {
        End::Status(status) => Ok(status),
        End::Signal(_) => Ok(Status::Done),
    }
}

fn settings(mut options: cli::Peer, said: Said) -> anyhow::Result<Settings> {
    let is_configured = options.config.config.is_some();
    options.sources.tracker = trackers(options.sources.tracker, &options.files)?;
    Ok(Settings {
        confinement: Confinement::new(&options.confine)?,
        files: list(&options)?,
        files_again: is_configured.then(|| ReadList(Box::new(move || list_again(&said)))),
        sources: options.sources,
        events: Events::new(options.reporting.json)?,
        reporting: options.reporting,
        listen: Some(Listen::chosen(&options.listen, ListenAddress::any(0))?),
        model: options.server.model,
        limits: limits_with_pool(Limits::default(), &options.limits, options.server.pool),
        daemon: true,
        seed_only: false,
        control: options.status.control,
        told: None,
        hashed: Vec::new(),
        witnessed: false,
        seed_for: Duration::ZERO,
        timeout: None,
        vitals: Rc::new(Vitals::new(Manager::of_environment())?),
    })
}

/// The files that the options name.
fn list(options: &cli::Peer) -> anyhow::Result<FileList> {
    let is_hash = |file: &Wanted| matches!(file, Wanted::Hash(_));
    if options.files.iter().any(is_hash) {
        return Err(UsageError("a hash alone has no name: use a link, or a cascade file").into());
    }
    if options.files.is_empty() && !options.watch_dir {
        return Err(UsageError(
            "there is nothing to serve: name a CASCADE or LINK, here or in the configuration, or say --watch-dir",
        )
        .into());
    }
    let directory = options.directory.as_deref();
    let watch = directory.filter(|_| options.watch_dir);
    Ok(FileList {
        named: specify(&options.files, directory, None)?,
        watch: watch.map(Into::into),
    })
}

/// The files that the command line and the configuration name now.
fn list_again(said: &Said) -> anyhow::Result<FileList> {
    match config::again(said, &AT_ONCE, &open_data)?.command {
        cli::Command::Peer(options) => list(&options),
        _ => anyhow::bail!("the command line is another one"),
    }
}

/// All that can be known without listening, verifying or asking anybody but a name server.
fn check(settings: &Settings) -> anyhow::Result<Status> {
    let listen = settings.listen.as_ref();
    let at = listen.map_or(Ok(String::new()), Listen::check)?;
    for name in settings
        .sources
        .tracker
        .iter()
        .chain(&settings.sources.peer)
    {
        resolve::here(&name.host, &name.port)?;
    }
    let files = settings.files.all()?;
    for file in &files {
        files::check_directory(&crate::store::atomic::directory_of(&file.data))?;
        if !file.is_to_be_fetched() {
            files::read_cascade(&file.cascade)?;
        }
    }
    print(format_args!(
        "ok: {}, {}, at {at}\n",
        count(files.len(), "file"),
        count(settings.sources.tracker.len(), "tracker")
    ))?;
    Ok(Status::Done)
}
