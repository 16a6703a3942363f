//! `cascade tracker`: knows the peers of each file.

mod helpers;
mod single;
mod wishes;

use std::fs::File;
use std::hash::RandomState;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use nix::sys::signal::Signal;

use super::limits::limits_with_pool;
use super::{Status, UsageError, files, print};
use crate::cli::{self, Tracker};
use crate::config::changes::Said;
use crate::confine::outside::Outside;
use crate::confine::reader::Reader;
use crate::confine::{Confinement, Role, keeper};
use crate::daemon::manager::{Manager, listening_on};
use crate::daemon::sockets::Listen;
use crate::daemon::{self, pidfile};
use crate::net::address::ListenAddress;
use crate::net::listen;
use crate::output::announce;
use crate::server::{self, Ledger, Limits};
use crate::service::tracker::{ReadPolicy, TrackerService};
use crate::status::doors::Doors;
use crate::status::report::About;
use crate::status::reporter::{Reporter, Subject};
use crate::store::atomic;
use crate::sys::signals::Signals;
use crate::text::{count, escape_path};
use crate::tracker::policy::Policy;
use crate::tracker::registry::{Registry, Tracked};
use crate::tracker::state;

use helpers::Helpers;

/// Runs a tracker until it is asked to stop.
///
/// # Errors
/// Where it cannot begin, or cannot save its state at the end.
pub fn run(mut options: Tracker, said: Said) -> anyhow::Result<Status> {
    daemon::log_as(options.daemon.log, options.verbose, false);
    let confinement = Confinement::new(&options.confine)?;
    let policy = wishes::policy(&options, &|path| File::open(path))?;
    let listen = listen(&options)?;
    files::check_places(options.daemon.pidfile.iter().chain(&options.status.control))?;
    if options.config.check {
        return check(&options, &policy, &listen);
    }
    if options.daemon.inetd {
        return single::serve(&options, &policy, &confinement);
    }
    let _pidfile = pidfile::hold(options.daemon.pidfile.as_deref(), &confinement)?;
    let mut limits = limits_with_pool(Limits::default(), &options.limits, options.server.pool);
    let listeners = listen.open(&mut limits)?;
    let manager = Manager::of_environment();
    let ledger = Ledger::new().context("cannot share memory with child processes")?;
    let ledger = Arc::new(ledger);
    let Helpers {
        reader,
        writer,
        keeper,
    } = helpers::start(&options, &said, &confinement)?;
    // There may be many, and a fork copies the tables of what this process has.
    options.targets = Vec::new();
    let about = About::now(&listeners).context("cannot look at the listening sockets")?;
    let reporter = reporter(&options, about, &ledger, &confinement)?;
    let service = service(&options, policy, writer)?;
    let service = service.with_policy_from(read_again(said, reader));
    let service = match &reporter {
        Some(reporter) => service.with_listener(reporter.keeper(), reporter.tell()),
        None => service,
    };
    // Before anybody is told that we listen: whoever reads that may ask us to stop.
    let signals = Signals::new(&[
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGCHLD,
        Signal::SIGHUP,
        Signal::SIGUSR1,
    ])
    .and_then(|signals| manager.watch(signals, &ledger))
    .context("cannot catch signals")?;
    if let Some(reporter) = &reporter {
        reporter.announce()?;
    }
    confinement.leave()?;
    confinement.enter(Role::Server {
        threads: options.server.model.has_threads(),
        tables: true,
        tells: reporter.as_ref().map(Reporter::descriptor),
    })?;
    log::info!("{confinement}");
    manager.ready(&listening_on(&listeners));
    announce(&listeners)?;
    server::serve(
        options.server.model,
        &listeners,
        &service,
        &limits,
        &ledger,
        &signals,
    )
    .context("cannot go on serving")?;
    if let Some(reporter) = &reporter {
        reporter.stop();
    }
    if let Some(path) = &options.state {
        save(&service, path)?;
    }
    // With its ends of the conversations.
    drop(service);
    keeper.into_iter().for_each(keeper::wait_for_end);
    log::info!("stopped after {}", ledger.tally());
    Ok(Status::Done)
}

/// All that can be known without listening.
fn check(options: &Tracker, policy: &Policy, listen: &Listen) -> anyhow::Result<Status> {
    whole_seconds(options.ttl)?;
    let at = listen.check()?;
    listen::check(&options.http)?;
    if let Some(path) = &options.state {
        files::check_directory(&atomic::directory_of(path))?;
        state::load(path, |_| {})?;
    }
    let files = match &policy.tracked {
        Tracked::Any => "any file".into(),
        Tracked::Named(hashes) => count(hashes.len(), "file"),
    };
    print(format_args!("ok: {files}, at {at}\n"))?;
    Ok(Status::Done)
}

/// Whoever tells how this tracker is, where somebody is to be told.
fn reporter(
    options: &Tracker,
    about: About,
    ledger: &Arc<Ledger>,
    confinement: &Confinement,
) -> anyhow::Result<Option<Reporter>> {
    let control = options.status.control.as_deref();
    let doors = Doors::open(control, &options.http, &options.http_host, confinement)?;
    let subject = Subject {
        about,
        ledger: Arc::clone(ledger),
        survey: options.survey,
    };
    Reporter::start(doors, subject, confinement)
}

/// How the operator's wishes are read again: where that takes files another process does it, for this one may open none.
fn read_again(said: Said, reader: Option<Reader<Policy>>) -> ReadPolicy {
    match reader {
        Some(reader) => Box::new(move || reader.read()),
        None => Box::new(move || wishes::policy_now(&said)),
    }
}

/// Where the options say, else at the port that trackers have.
fn listen(options: &Tracker) -> anyhow::Result<Listen> {
    Listen::chosen(&options.listen, ListenAddress::any(cli::TRACKER_PORT))
}

fn service(
    options: &Tracker,
    policy: Policy,
    writer: Option<Outside>,
) -> anyhow::Result<TrackerService> {
    let service = empty_service(options, policy)?;
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

/// A tracker that knows nobody yet.
fn empty_service(options: &Tracker, policy: Policy) -> anyhow::Result<TrackerService> {
    let ttl = whole_seconds(options.ttl)?;
    let registry = Registry::new(options.max_peers, ttl, &policy.tracked, RandomState::new())
        .with_context(|| format!("cannot make room for {} peers", options.max_peers))?;
    let registry = registry.with_descriptions(&policy.described);
    Ok(TrackerService::new(policy, registry))
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
