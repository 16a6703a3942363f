//! Everything that a comparison found: what the terminal, the page and the JSON file are made of.
//!
//! The names of the fields are the keys of the JSON file; cascade-compare(1) describes them.

use serde::Serialize;

use super::cell::CellReport;
use super::claims::Claim;
use super::cost::{Cost, Sharing};
use super::isolation::Isolation;
use super::machine::Machine;
use super::plan::{Mode, ServiceKind};
use super::registry::Filled;
use super::sandbox::Sandboxed;
use super::stats::Spread;
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
    /// What the confinement of the process model costs; nothing where that is not compared.
    pub sandbox: Option<Sandboxed>,
    /// What the textbook says, and what was found.
    pub claims: Vec<Claim>,
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
