//! `cascade tracker`: knows the peers of each file.

mod helpers;

use std::collections::BTreeSet;
use std::fs::File;
use std::hash::RandomState;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use nix::sys::signal::Signal;

use super::limits::limits_with_pool;
use super::{Status, UsageError, target};
use crate::cli::{self, Tracker};
use crate::confine::opener::Opener;
use crate::confine::outside::Outside;
use crate::confine::{Confinement, Role};
use crate::daemon::{self, pidfile};
use crate::net::address::ListenAddress;
use crate::net::listen;
use crate::output::announce;
use crate::server::{self, Ledger, Limits};
use crate::service::tracker::{ReadPolicy, TrackerService};
use crate::sys::signals::Signals;
use crate::text::escape_path;
use crate::tracker::config::Config;
use crate::tracker::policy::Policy;
use crate::tracker::registry::{Registry, Tracked};

use helpers::Helpers;

/// Runs a tracker until it is asked to stop.
///
/// # Errors
/// Where it cannot begin, or cannot save its state at the end.
pub fn run(options: Tracker) -> anyhow::Result<Status> {
    daemon::log_as(options.daemon.log, options.verbose, false);
    let confinement = Confinement::new(&options.confine)?;
    let _pidfile = pidfile::hold(options.daemon.pidfile.as_deref(), &confinement)?;
    let options = Arc::new(options);
    let config = read_config(&options, &open)?;
    let addresses = listen_addresses(&options, &config);
    let policy = policy(&options, config, &open)?;
    let Helpers { opener, writer } = helpers::start(&options, &confinement)?;
    let service = service(&options, policy, writer)?;
    let service = service.with_policy_from(read_again(&options, opener));
    let limits = limits_with_pool(Limits::default(), &options.limits, options.server.pool);
    let listeners = listen::open(&addresses, limits.backlog)?;
    // Before anybody is told that we listen: whoever reads that may ask us to stop.
    let signals = Signals::new(&[
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGCHLD,
        Signal::SIGHUP,
        Signal::SIGUSR1,
    ])
    .context("cannot catch signals")?;
    confinement.leave()?;
    confinement.enter(Role::Server {
        threads: options.server.model.has_threads(),
        tables: true,
    })?;
    log::info!("{confinement}");
    announce(&listeners)?;
    let ledger = Ledger::new()?;
    server::serve(
        options.server.model,
        &listeners,
        &service,
        &limits,
        &ledger,
        &signals,
    )
    .context("cannot go on serving")?;
    if let Some(path) = &options.state {
        save(&service, path)?;
    }
    log::info!("stopped after {}", ledger.tally());
    Ok(Status::Done)
}

/// How a file is opened that is named on the command line.
type Open<'a> = &'a dyn Fn(&Path) -> io::Result<File>;

/// At the start anything will do, a pipe as well.
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// How the operator's wishes are read again: by then this process may open no file, and another does.
fn read_again(options: &Arc<Tracker>, opener: Option<Opener>) -> ReadPolicy {
    let options = Arc::clone(options);
    Box::new(move || match &opener {
        Some(opener) => read_policy(&options, &|path| opener.open(path)),
        None => read_policy(&options, &open),
    })
}

/// What the operator wants, from the files as they are now. The port stays what it was.
fn read_policy(options: &Tracker, open: Open<'_>) -> anyhow::Result<Policy> {
    policy(options, read_config(options, open)?, open)
}

fn read_config(options: &Tracker, open: Open<'_>) -> anyhow::Result<Config> {
    let Some(path) = &options.config else {
        return Ok(Config::default());
    };
    let reading = || format!("cannot read {}", escape_path(path));
    let file = open(path).with_context(reading)?;
    Config::read_open(file).with_context(reading)
}

/// The command line, else the configuration file, else the port that trackers have.
fn listen_addresses(options: &Tracker, config: &Config) -> Vec<ListenAddress> {
    if options.listen.is_empty() {
        vec![ListenAddress::any(config.port.unwrap_or(cli::TRACKER_PORT))]
    } else {
        options.listen.clone()
    }
}

fn policy(options: &Tracker, config: Config, open: Open<'_>) -> anyhow::Result<Policy> {
    let named: BTreeSet<_> = options
        .targets
        .iter()
        .map(|target| target::hash_of(target, open))
        .collect::<anyhow::Result<_>>()?;
    let hashes = &named | &config.hashes;
    let tracked = if options.open {
        Tracked::Any
    } else if hashes.is_empty() {
        return Err(UsageError(
            "there is nothing to track: name a CASCADE or HASH, here or in the configuration, or say --open",
        )
        .into());
    } else {
        Tracked::Named(hashes)
    };
    Ok(Policy {
        tracked,
        good_ips: config.good_ips,
        ban_private: config.ban_private,
    })
}

fn service(
    options: &Tracker,
    policy: Policy,
    writer: Option<Outside>,
) -> anyhow::Result<TrackerService> {
    let ttl = whole_seconds(options.ttl)?;
    let registry = Registry::new(options.max_peers, ttl, &policy.tracked, RandomState::new())
        .with_context(|| format!("cannot make room for {} peers", options.max_peers))?;
    let service = TrackerService::new(policy, registry);
    match (&options.state, writer) {
        (Some(path), Some(writer)) => {
            let service = service.with_state(path, SystemTime::now(), writer)?;
            // A place where nothing can be saved is better known now than at the end.
            save(&service, path)?;
            Ok(service)
        }
        _ => Ok(service),
    }
}

fn save(service: &TrackerService, path: &Path) -> anyhow::Result<()> {
    service
        .finish()
        .with_context(|| format!("cannot save {}", escape_path(path)))
}

/// Times on the wire are in seconds.
fn whole_seconds(ttl: Duration) -> Result<u32, UsageError> {
    match u32::try_from(ttl.as_secs()) {
        Ok(0) | Err(_) => Err(UsageError("--ttl must be at least one second")),
        Ok(ttl) => Ok(ttl),
    }
}
