//! A node of the network: what `get` and `peer` have in common.
//!
//! The supervisor opens files and sockets, starts the roles as processes of their own, and watches them:
//!
//! ```text
//! supervisor
//! ├─ listener        accept → one child per connection      crate::server
//! ├─ announcer       one per tracker; peers found → pipe    announcer
//! ├─ verifier        what is there of a file, on all cores  crate::store::verify
//! └─ downloader      one per unfinished file                crate::download
//!    ├─ worker       one remote peer; reports → pipe
//!    └─ whole-file hash
//! ```
//!
//! Files that come and go later are handed to the listener that serves already: see [`handover`].
//!
//! It never reads a byte that a stranger sent. Which blocks are present, and how far a download is, it sees in shared
//! memory.

pub mod announcer;
pub mod display;
mod files;
pub mod handover;
pub mod item;
mod roles;
mod supervisor;
mod throttle;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;

use crate::cli::Sources;
use crate::confine::Confinement;
use crate::exit::Status;
use crate::net::address::{Advertised, HostPort, ListenAddress};
use crate::net::{listen, resolve};
use crate::server::{Limits, Model, limits};
use crate::sys::signals::Signals;
use crate::text::escape_path;
use item::Item;
use supervisor::Supervisor;

/// What a node is to do.
#[derive(Debug)]
pub struct Settings {
    /// Cascade files, and where their data lie.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// A directory of which all cascade files are wanted too, their data beside them.
    pub watch: Option<PathBuf>,
    /// Where blocks come from.
    pub sources: Sources,
    /// Where to serve; nothing where it does not serve.
    pub listen: Option<Vec<ListenAddress>>,
    /// How to serve.
    pub model: Model,
    /// What those are granted who are served.
    pub limits: Limits,
    /// A daemon serves until a signal, and never gives up; otherwise the node ends when it has everything.
    pub daemon: bool,
    /// How long to serve after that.
    pub seed_for: Duration,
    /// Give up when nothing arrived for this long.
    pub timeout: Option<Duration>,
    /// How the processes that face strangers are confined.
    pub confinement: Confinement,
}

/// A tracker by its name, and its addresses.
#[derive(Debug, Clone)]
pub struct TrackerAddress {
    /// As the user named it.
    pub name: String,
    /// To be tried in this order.
    pub addresses: Vec<SocketAddr>,
}

/// How a node ended.
#[derive(Debug)]
pub enum End {
    /// By itself.
    Status(Status),
    /// Because it was asked to, by this signal.
    Signal(Signal),
}

/// Runs a node to its end: resolve names, open sockets and files, start the roles, watch them, stop them.
///
/// # Errors
/// Where it cannot begin.
pub fn run(settings: Settings) -> anyhow::Result<End> {
    limits::raise_descriptor_limit();
    let trackers = resolve_trackers(&settings.sources.tracker)?;
    let peers = resolve_peers(&settings.sources.peer)?;
    let listeners = settings
        .listen
        .as_deref()
        .map(|addresses| listen::open(addresses, settings.limits.backlog))
        .transpose()?
        .unwrap_or_default();
    // Until now there was nothing to clean up: a signal had its usual effect, whatever was being waited for.
    let signals = Signals::new(signals_of(&settings))?;
    let settings = &inside(settings)?;
    // Files are opened as the user who will own them.
    settings.confinement.leave()?;
    settings.confinement.gain_nothing()?;
    log::log!(level(settings), "{}", settings.confinement);
    let (items, refused) = open_files(settings, !trackers.is_empty())?;
    if items.is_empty() && settings.watch.is_none() {
        return Ok(End::Status(Status::Failed));
    }
    let addresses = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?;
    let place = Place {
        listeners,
        addresses,
        advertise: settings.sources.advertise,
    };
    let mut supervisor = Supervisor::new(settings, trackers, peers, place, items, refused)?;
    let end = supervisor.run(&signals)?;
    supervisor.stop(&signals)?;
    Ok(end)
}

/// The signals that mean something to a node.
fn signals_of(settings: &Settings) -> &'static [Signal] {
    const OF_ALL: [Signal; 5] = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGCHLD,
        Signal::SIGUSR1,
        Signal::SIGHUP,
    ];
    // Of one that ends by itself, a terminal that hangs up is the end.
    if settings.daemon {
        &OF_ALL
    } else {
        &OF_ALL[..4]
    }
}

/// A daemon's log is kept; who downloads a file waits for that.
fn level(settings: &Settings) -> log::Level {
    if settings.daemon {
        log::Level::Info
    } else {
        log::Level::Debug
    }
}

/// The files as they are called once the root directory was changed.
fn inside(settings: Settings) -> anyhow::Result<Settings> {
    let inside = |path: &PathBuf| settings.confinement.inside(path);
    let files = settings.files.iter();
    Ok(Settings {
        files: files
            .map(|(cascade, data)| Ok((inside(cascade)?, inside(data)?)))
            .collect::<anyhow::Result<_>>()?,
        watch: settings.watch.as_ref().map(inside).transpose()?,
        ..settings
    })
}

/// Where this node can be found.
#[derive(Debug)]
pub struct Place {
    /// Its listening sockets; none where it does not serve.
    pub listeners: Vec<TcpListener>,
    /// Their addresses.
    pub addresses: Vec<SocketAddr>,
    /// What the user says its address is.
    pub advertise: Option<Advertised>,
}

fn resolve_trackers(names: &[HostPort]) -> anyhow::Result<Vec<TrackerAddress>> {
    names
        .iter()
        .map(|name| {
            let mut addresses = resolve::apart(name)?;
            // Records are IPv4, and a peer is registered under the address that it comes from.
            addresses.sort_by_key(SocketAddr::is_ipv6);
            Ok(TrackerAddress {
                name: name.to_string(),
                addresses,
            })
        })
        .collect()
}

/// One address per peer: its first, for a peer with two addresses must not count as two peers.
fn resolve_peers(names: &[HostPort]) -> anyhow::Result<Vec<SocketAddr>> {
    let mut peers = Vec::new();
    for name in names {
        let address = resolve::apart(name)?
            .into_iter()
            .next()
            .with_context(|| format!("cannot resolve {name}"))?;
        if !peers.contains(&address) {
            peers.push(address);
        }
    }
    Ok(peers)
}

/// Opens every file; says which cannot be opened, and goes on with the others. Answers whether any could not.
fn open_files(settings: &Settings, tracked: bool) -> anyhow::Result<(Vec<Item>, bool)> {
    let mut items: Vec<Item> = Vec::new();
    let mut refused = false;
    for (cascade, data) in &files::list(settings)? {
        match open_file(cascade, data, tracked, false, &items) {
            Ok(item) => items.extend(item),
            Err(error) => {
                crate::logging::complain(&error);
                refused = true;
            }
        }
    }
    Ok((items, refused))
}

/// Opens a file, unless it was named before. Two files cannot have one place.
fn open_file(
    cascade: &Path,
    data: &Path,
    tracked: bool,
    late: bool,
    others: &[Item],
) -> anyhow::Result<Option<Item>> {
    let item = Item::open(cascade, data, tracked, late)?;
    let Some(other) = others
        .iter()
        .find(|other| other.data.place() == item.data.place())
    else {
        return Ok(Some(item));
    };
    anyhow::ensure!(
        other.hash == item.hash,
        "cannot download {} to {}: another file goes there",
        escape_path(cascade),
        item.name
    );
    Ok(None)
}

/// A daemon prints where it listens, for scripts, before its first accept.
fn announce_listeners(listeners: &[TcpListener], daemon: bool) -> anyhow::Result<()> {
    for listener in listeners {
        let address = listener.local_addr()?;
        if daemon {
            // Nobody may want to know, and others still want to be served.
            crate::output::print_bytes(format!("listening on {address}\n").as_bytes())?;
        } else {
            log::debug!("listening on {address}");
        }
    }
    Ok(())
}
