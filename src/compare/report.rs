//! Everything that a comparison found: what the terminal, the page and the JSON file are made of.
//!
//! The names of the fields are the keys of the JSON file; cascade-compare(1) describes them.

use serde::Serialize;

use super::claims::Claim;
use super::cost::{Cost, Sharing};
use super::isolation::Isolation;
use super::machine::Machine;
use super::plan::{Mode, ServiceKind};
use super::registry::Filled;
use super::stats::{Latency, Spread};
use super::units::per_cent;

/// The format of the JSON file.
pub const FORMAT: u32 = 1;

/// A whole comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The program and its version.
    pub program: String,
    /// When it began, in seconds since the Unix epoch.
    pub began: u64,
    /// How long it took, in seconds.
    pub took: f64,
    /// Where it ran.
    pub machine: Machine,
    /// What was served.
    pub service: ServiceKind,
    /// The models, as they are named in the tables.
    pub models: Vec<String>,
    /// How many clients there were at once.
    pub clients: Vec<usize>,
    /// How long each cell was measured, over all rounds, in seconds.
    pub duration: f64,
    /// In how many rounds.
    pub rounds: usize,
    /// By how much the rounds of a cell differ: the range of its rate as a share of the median, in the middle cell.
    pub noise: Option<f64>,
    /// A cell per load and model.
    pub cells: Vec<CellReport>,
    /// What a flow of control costs.
    pub costs: Vec<Cost>,
    /// What it costs to share a figure.
    pub sharing: Sharing,
    /// What a crash takes with it.
    pub isolation: Vec<Isolation>,
    /// What a list costs where a tracker knows many peers; of other services nothing.
    pub registry: Vec<Filled>,
    /// What the textbook says, and what was found.
    pub claims: Vec<Claim>,
}

/// What was measured of one model under one load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CellReport {
    /// The model, or `generator`.
    pub model: String,
    /// How the clients behaved.
    pub mode: Mode,
    /// How many were busy at once.
    pub clients: usize,
    /// How many more connections were open and silent.
    pub idle: usize,
    /// Clients that never got an answer. Where there are any, averages would say nothing and are left out.
    pub starved: usize,
    /// Replies that were complete.
    pub requests: u64,
    /// Connections that broke, and replies that were wrong.
    pub errors: u64,
    /// Connections per second.
    pub connections_per_second: Option<Spread>,
    /// Requests per second.
    pub requests_per_second: Option<Spread>,
    /// Latencies, in microseconds.
    pub latency_us: Option<Latency>,
    /// The server's processor time per request, in microseconds.
    pub cpu_us_per_request: Option<f64>,
    /// How many cores the server kept busy.
    pub cores: Option<f64>,
    /// The server's memory at the end, in KiB: the proportional shares of all its processes.
    pub memory_kib: Option<Spread>,
    /// What the idle connections cost.
    pub idle_memory: Option<IdleMemory>,
    /// The rate as a share of what the generator reaches at most.
    pub of_generator: Option<f64>,
}

/// The memory of idle connections.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct IdleMemory {
    /// Idle connections that had got an answer and so were really served.
    pub served: usize,
    /// The server's memory without a connection, in KiB; as in the next two, pages of files (the program itself)
    /// are left out.
    pub before_kib: f64,
    /// With the idle connections, in KiB.
    pub with_kib: f64,
    /// The difference per connection served, in KiB; none where none was.
    pub per_connection_kib: Option<f64>,
}

/// Rounds that differ by more than this share of the median were disturbed by something else.
const NOISY: f64 = 0.4;

/// By how much the rounds differ, in the cell in the middle.
pub fn noise(cells: &[CellReport]) -> Option<f64> {
    let ranges = cells
        .iter()
        .filter_map(CellReport::rate)
        .filter(|rate| rate.median > 0.0)
        .map(|rate| (rate.max - rate.min) / rate.median);
    Spread::of(ranges).map(|spread| spread.median)
}

impl Report {
    /// What makes the figures doubtful.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.machine.debug_build {
            warnings.push("this is a debug build, whose figures mean little".into());
        }
        if let Some(noise) = self.noise.filter(|noise| *noise > NOISY) {
            warnings.push(format!(
                "rounds that should be equal differ by {} of their median: something else runs on this machine",
                per_cent(noise)
            ));
        }
        warnings
    }

    /// The cells of a load, in the order of the models.
    pub fn load(&self, mode: Mode, clients: usize) -> impl Iterator<Item = &CellReport> {
        self.cells
            .iter()
            .filter(move |cell| cell.mode == mode && cell.clients == clients)
    }

    /// The loads that were measured, in order: how the clients behave, how many are busy, how many are silent.
    pub fn loads(&self) -> Vec<(Mode, usize, usize)> {
        let mut loads: Vec<_> = self
            .cells
            .iter()
            .map(|cell| (cell.mode, cell.clients, cell.idle))
            .collect();
        loads.dedup();
        loads
    }
}

impl CellReport {
    /// The rate that this cell is about: connections where each request has one, else requests.
    pub fn rate(&self) -> Option<Spread> {
        self.requests_per_second
    }

    /// Whether the generator itself may have been what was measured.
    pub fn is_near_limit(&self) -> bool {
        self.of_generator.is_some_and(|share| share >= 0.9) && self.model != "generator"
    }
}
