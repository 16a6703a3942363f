//! `cascade tracker`: knows the peers of each file.

use std::collections::BTreeSet;
use std::hash::RandomState;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use nix::sys::signal::Signal;

use super::limits::limits_with_pool;
use super::{Status, UsageError, target};
use crate::cli::{self, Tracker};
use crate::logging;
use crate::net::address::ListenAddress;
use crate::net::listen;
use crate::output::announce;
use crate::server::{self, Ledger, Limits};
use crate::service::tracker::TrackerService;
use crate::sys::signals::Signals;
use crate::text::escape_path;
use crate::tracker::config::Config;
use crate::tracker::policy::Policy;
use crate::tracker::registry::{Registry, Tracked};

/// Runs a tracker until it is asked to stop.
///
/// # Errors
/// Where it cannot begin, or cannot save its state at the end.
pub fn run(options: Tracker) -> anyhow::Result<Status> {
    logging::set_verbose(options.verbose);
    let config = read_config(&options)?;
    let addresses = listen_addresses(&options, &config);
    let policy = policy(&options, config)?;
    let service = service(&options, policy)?;
    let limits = limits_with_pool(Limits::default(), &options.limits, options.server.pool);
    let listeners = listen::open(&addresses, limits.backlog)?;
    // Before anybody is told that we listen: whoever reads that may ask us to stop.
    let signals = Signals::new(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD])
        .context("cannot catch signals")?;
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

fn read_config(options: &Tracker) -> anyhow::Result<Config> {
    match &options.config {
        None => Ok(Config::default()),
        Some(path) => {
            Config::read(path).with_context(|| format!("cannot read {}", escape_path(path)))
        }
    }
}

/// The command line, else the configuration file, else the port that trackers have.
fn listen_addresses(options: &Tracker, config: &Config) -> Vec<ListenAddress> {
    if options.listen.is_empty() {
        vec![ListenAddress::any(config.port.unwrap_or(cli::TRACKER_PORT))]
    } else {
        options.listen.clone()
    }
}

fn policy(options: &Tracker, config: Config) -> anyhow::Result<Policy> {
    let named: BTreeSet<_> = options
        .targets
        .iter()
        .map(target::hash_of)
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

fn service(options: &Tracker, policy: Policy) -> anyhow::Result<TrackerService> {
    let ttl = whole_seconds(options.ttl)?;
    let registry = Registry::new(options.max_peers, ttl, &policy.tracked, RandomState::new())
        .with_context(|| format!("cannot make room for {} peers", options.max_peers))?;
    let service = TrackerService::new(policy, registry);
    Ok(match &options.state {
        None => service,
        Some(path) => {
            let service = service.with_state(path.clone(), SystemTime::now())?;
            // A place where nothing can be saved is better known now than at the end.
            save(&service, path)?;
            service
        }
    })
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
