//! What is measured, and in which order.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::server::Model;

/// The service that the servers offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// Lines, echoed.
    Echo,
    /// Blocks of a small file, from a peer.
    Block,
    /// The list of a file's peers, from a tracker.
    Tracker,
}

/// How the clients of a cell behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Each request on a connection of its own.
    PerRequest,
    /// Each client keeps its connection.
    Persistent,
    /// Some connections are silent while others are busy.
    Idle,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// As the tables have it; unique within a plan.
    pub name: String,
    /// The server's model; none is the trivial responder within the generator, whose figures are the generator's
    /// own limit.
    pub model: Option<Model>,
}

/// One thing that is measured, once a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Who answers.
    pub subject: Subject,
    /// How the clients behave.
    pub mode: Mode,
    /// How many clients ask at once.
    pub clients: usize,
    /// How many more connections are open and silent.
    pub idle: usize,
}

/// Everything that is measured with a load.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the servers offer.
    pub service: ServiceKind,
    /// The models, in the order of the tables. One that is named twice is measured twice, which shows how far two
    /// equal servers differ here.
    pub models: Vec<Model>,
    /// How many clients there are at once.
    pub clients: Vec<usize>,
    /// How long each cell is measured, over all rounds.
    pub duration: Duration,
    /// In how many turns.
    pub rounds: usize,
}

/// Clients that are busy beside the idle connections.
const ACTIVE: usize = 16;

impl Plan {
    /// The models as the tables name them.
    pub fn names(&self) -> Vec<String> {
        self.subjects()
            .into_iter()
            .filter(|subject| subject.model.is_some())
            .map(|subject| subject.name)
            .collect()
    }

    /// How long one cell is measured in one round.
    pub fn window(&self) -> Duration {
        self.duration / u32::try_from(self.rounds).unwrap_or(u32::MAX).max(1)
    }

    /// All cells in the order of the tables.
    pub fn cells(&self) -> Vec<Cell> {
        self.groups().into_iter().flatten().collect()
    }

    /// The indices into [`Plan::cells`] in the order of this round. Cells of the same load follow each other, so
    /// that whatever disturbs the machine for a while disturbs all models; and no model is always the first.
    pub fn order(&self, round: usize) -> Vec<usize> {
        let mut order = Vec::new();
        for group in self.groups() {
            let first = order.len();
            let n = group.len();
            order.extend((0..n).map(|place| {
                let turned = if round.is_multiple_of(2) {
                    place
                } else {
                    n - 1 - place
                };
                first + (turned + round) % n
            }));
        }
        order
    }

    /// The cells by load, each with every subject.
    fn groups(&self) -> Vec<Vec<Cell>> {
        self.loads()
            .into_iter()
            .map(|(mode, clients, idle)| {
                self.subjects()
                    .into_iter()
                    .filter(|subject| mode != Mode::Idle || subject.model.is_some())
                    .map(|subject| Cell {
                        subject,
                        mode,
                        clients,
                        idle,
                    })
                    .collect()
            })
            .collect()
    }

    fn loads(&self) -> Vec<(Mode, usize, usize)> {
        let mut loads: Vec<_> = self
            .clients
            .iter()
            .map(|n| (Mode::PerRequest, *n, 0))
            .collect();
        // A tracker closes after one response: that is its protocol.
        if self.service != ServiceKind::Tracker {
            loads.extend(self.clients.iter().map(|n| (Mode::Persistent, *n, 0)));
            let most = self.clients.iter().copied().max().unwrap_or(1);
            loads.push((Mode::Idle, most.min(ACTIVE), most));
        }
        loads
    }

    /// The generator's own limit first, then the models.
    fn subjects(&self) -> Vec<Subject> {
        let mut subjects = vec![Subject {
            name: "generator".into(),
            model: None,
        }];
        for (index, model) in self.models.iter().enumerate() {
            let before = self.models[..index].iter().filter(|m| *m == model).count();
            let name = match before {
                0 => model.to_string(),
                n => format!("{} {}", model, n + 1),
            };
            subjects.push(Subject {
                name,
                model: Some(*model),
            });
        }
        subjects
    }
}

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Echo => "echo",
            Self::Block => "block",
            Self::Tracker => "tracker",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(service: ServiceKind) -> Plan {
        Plan {
            service,
            models: vec![Model::Process, Model::Event, Model::Process],
            clients: vec![1, 4],
            duration: Duration::from_secs(3),
            rounds: 3,
        }
    }

    #[test]
    fn every_round_measures_every_cell_once_and_keeps_equal_loads_together() {
        let plan = plan(ServiceKind::Echo);
        let cells = plan.cells();
        assert_eq!(cells.len(), 4 * 4 + 3);
        for round in 0..7 {
            let order = plan.order(round);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..cells.len()));
            for group in order[..16].chunks(4) {
                assert!(group.iter().all(|cell| cell / 4 == group[0] / 4));
            }
        }
    }

    #[test]
    fn no_model_is_always_the_first() {
        let plan = plan(ServiceKind::Echo);
        let first: std::collections::BTreeSet<usize> =
            (0..4).map(|round| plan.order(round)[0]).collect();
        assert!(first.len() > 1, "{first:?}");
    }

    #[test]
    fn a_model_that_is_named_twice_is_measured_twice() {
        let names: Vec<String> = plan(ServiceKind::Echo)
            .cells()
            .into_iter()
            .take(4)
            .map(|cell| cell.subject.name)
            .collect();
        assert_eq!(names, ["generator", "process", "event", "process 2"]);
    }

    #[test]
    fn a_tracker_is_asked_once_per_connection() {
        let cells = plan(ServiceKind::Tracker).cells();
        assert!(cells.iter().all(|cell| cell.mode == Mode::PerRequest));
    }
}
