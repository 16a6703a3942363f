//! What the confinement of a server costs: a process per connection, confined as `--sandbox` does it and not at all.
//!
//! Both servers are started as a user would start them, and measured in turn, more often than the models: what is to be
//! seen are a few per cent.

use std::io;

use serde::Serialize;

use super::cell::CellReport;
use super::harness::{Fixture, Server};
use super::load;
use super::measure::{self, Round};
use super::part::Stop;
use super::plan::{Cell, Mode, Plan, Subject};
use super::stats::Spread;
use super::traffic::Traffic;
use crate::server::Model;

/// The model whose connections have a process of their own, which inherits what confines its parent.
pub const MODEL: Model = Model::Process;
/// Clients that ask at once, at the most.
const CLIENTS: usize = 16;
/// Turns in each round of the comparison.
const TURNS: usize = 4;

/// A server that is confined, and one that is not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sandboxed {
    /// What confines the first, as its log says it.
    pub in_force: String,
    /// With the sandbox.
    pub confined: CellReport,
    /// Without.
    pub unconfined: CellReport,
    /// Connections per second with the sandbox as a share of those without, of each turn.
    pub rate: Option<Spread>,
}

/// Measures both servers, in turn.
///
/// # Errors
/// Where a process of the comparison fails, or a signal stops it.
pub fn measure(
    plan: &Plan,
    fixture: &Fixture,
    in_force: String,
    stop: &Stop,
) -> io::Result<Sandboxed> {
    let start = |sandbox| {
        let options = ["--sandbox", sandbox];
        Server::start(plan.service, MODEL, &options, fixture, stop)
    };
    let servers = [start("auto")?, start("off")?];
    let cell = |name: &str| Cell {
        subject: Subject {
            name: name.into(),
            model: Some(MODEL),
        },
        mode: Mode::PerRequest,
        clients: plan.clients.iter().copied().max().unwrap_or(1).min(CLIENTS),
        idle: 0,
    };
    let cells = [cell("confined"), cell("not confined")];
    let mut rounds: [Vec<Round>; 2] = Default::default();
    for turn in 0..TURNS * plan.rounds {
        // Neither is always the first.
        for place in 0..servers.len() {
            let at = (turn + place) % servers.len();
            let order = load::Order {
                server: Some(servers[at].address),
                traffic: Traffic::new(plan.service, fixture.hash),
                mode: cells[at].mode,
                clients: cells[at].clients,
                idle: 0,
                window: plan.window(),
            };
            rounds[at].push(measure::observe(Some(&servers[at]), &order, stop)?);
        }
    }
    let pairs = rounds[0].iter().zip(&rounds[1]);
    let rate = Spread::of(pairs.filter_map(|(with, without)| Some(with.rate()? / without.rate()?)));
    let [confined, unconfined] = rounds;
    Ok(Sandboxed {
        in_force,
        rate,
        confined: measure::summary(&cells[0], confined),
        unconfined: measure::summary(&cells[1], unconfined),
    })
}
