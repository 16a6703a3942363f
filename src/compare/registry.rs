//! What a list costs where a tracker knows a million peers of a thousand files, beside one that knows none.
//!
//! Both trackers have the same room and track the same files, and are asked for all of them in turn. The full one is a
//! part of its own, which fills its registry before it listens: nobody could register so many peers from outside in the
//! time that a comparison takes, nor would a tracker let one address do so.

use std::hash::RandomState;
use std::io;
use std::net::{IpAddr, SocketAddrV4};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::cell::CellReport;
use super::harness::{self, Server};
use super::load;
use super::measure::{self, Round};
use super::part::{self, Complaints, Part, Stop};
use super::plan::{Cell, Mode, Plan, Subject};
use super::traffic::Traffic;
use crate::hash::CascadeHash;
use crate::server::Model;
use crate::service::tracker::TrackerService;
use crate::tracker::policy::Policy;
use crate::tracker::registry::{Registry, Tracked};

/// Peers of the full registry. A debug build, whose figures mean little, would take long to fill it.
const PEERS: u32 = if cfg!(debug_assertions) {
    10_000
} else {
    1_000_000
};
/// Files over which they are spread.
const FILES: u32 = 1000;
/// Seconds after which a peer would be forgotten: longer than any comparison lasts.
const TTL: u32 = 1 << 30;
/// Clients that ask at once, at the most.
const CLIENTS: usize = 16;

/// What the part is to serve.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The model, as it is named on the command line.
    pub model: String,
    /// How many peers are registered from the beginning.
    pub peers: u32,
}

/// A model with an empty registry, and with a full one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Filled {
    /// Peers of the full registry.
    pub peers: u32,
    /// Files that both trackers track.
    pub files: usize,
    /// Where nobody is registered.
    pub empty: CellReport,
    /// Where all are.
    pub full: CellReport,
    /// The server's processor time per request with the full registry, as a multiple of that with the empty one.
    pub cost: Option<f64>,
}

/// Measures both registries under a model, in turn.
///
/// # Errors
/// Where a process of the comparison fails, or a signal stops it.
pub fn measure(plan: &Plan, model: Model, stop: &Stop) -> io::Result<Filled> {
    let cell = Cell {
        subject: Subject {
            name: model.to_string(),
            model: Some(model),
        },
        mode: Mode::PerRequest,
        clients: plan.clients.iter().copied().max().unwrap_or(1).min(CLIENTS),
        idle: 0,
    };
    let servers = [start(model, 0, stop)?, start(model, PEERS, stop)?];
    let mut rounds: [Vec<Round>; 2] = Default::default();
    for round in 0..plan.rounds {
        // Neither is always the first.
        for turn in 0..servers.len() {
            let at = (round + turn) % servers.len();
            let order = order(plan, &cell, &servers[at]);
            rounds[at].push(measure::observe(Some(&servers[at]), &order, stop)?);
        }
    }
    let [empty, full] = rounds.map(|rounds| measure::summary(&cell, rounds));
    let cost = match (empty.cpu_us_per_request, full.cpu_us_per_request) {
        (Some(empty), Some(full)) if empty > 0.0 => Some(full / empty),
        _ => None,
    };
    Ok(Filled {
        peers: PEERS,
        files: FILES as usize,
        empty,
        full,
        cost,
    })
}

fn start(model: Model, peers: u32, stop: &Stop) -> io::Result<Server> {
    let mut part = Part::start::<&str>("registry", &[], Complaints::Kept)?;
    part.order(&Order {
        model: model.to_string(),
        peers,
    })?;
    Server::of(part, stop)
}

fn order(plan: &Plan, cell: &Cell, server: &Server) -> load::Order {
    load::Order {
        server: Some(server.address),
        traffic: Traffic::lists(&files()),
        mode: cell.mode,
        clients: cell.clients,
        idle: cell.idle,
        window: plan.window(),
    }
}

fn files() -> Vec<CascadeHash> {
    (0..FILES)
        .map(|n| CascadeHash::of(&n.to_be_bytes()))
        .collect()
}

/// The part's whole life.
///
/// # Errors
/// Where it cannot serve.
pub fn run() -> io::Result<()> {
    let Some(order) = part::take_order::<Order>()? else {
        return Ok(());
    };
    let policy = Policy {
        tracked: Tracked::Named(files().into_iter().collect()),
        good_ips: Default::default(),
        ban_private: false,
        described: Default::default(),
    };
    let mut registry = Registry::new(PEERS, TTL, &policy.tracked, RandomState::new())?;
    fill(&mut registry, order.peers)?;
    harness::serve(&order.model, &TrackerService::new(policy, registry))
}

/// Registers so many peers, each from an address of its own, with files that follow each other.
fn fill(registry: &mut Registry, peers: u32) -> io::Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = u32::try_from(since.unwrap_or_default().as_secs()).unwrap_or(u32::MAX);
    let mut files = files().into_iter().cycle();
    for n in 0..peers {
        // 10.0.0.0/8 has sixteen million addresses.
        let peer = SocketAddrV4::new((0x0a00_0000 | n).into(), 80);
        let Some(file) = files.next() else {
            break;
        };
        registry
            .subscribe(&file, peer, IpAddr::V4(*peer.ip()), false, now)
            .map_err(io::Error::other)?;
    }
    Ok(())
}
