//! What the textbook says about the models, and what was measured here.
//!
//! The textbook is "Computer Systems: A Programmer's Perspective", whose chapter on concurrent programming compares
//! processes, events and threads. Each verdict is computed from the figures of this run.

use serde::Serialize;

use super::cell::CellReport;
use super::cost::{Cost, Kind, Sharing};
use super::isolation::Isolation;
use super::machine::Machine;
use super::plan::Mode;
use super::units::{count, cycles, micros, range, ratio};

/// Less than this is no difference, on a machine with other things to do.
const NOTICEABLE: f64 = 1.1;

/// Whether a statement is true here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Under every load that was measured.
    Holds,
    /// Under none.
    DoesNotHold,
    /// Under some, or in one sense and not in another.
    Depends,
    /// The models or loads that it is about were left out.
    NotMeasured,
}

impl Verdict {
    /// A few words for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::DoesNotHold => "does not hold",
            Self::Depends => "depends",
            Self::NotMeasured => "not measured",
        }
    }

    /// All, none or some of several observations.
    fn of(observations: impl IntoIterator<Item = bool>) -> Self {
        let observations: Vec<bool> = observations.into_iter().collect();
        let held = observations.iter().filter(|held| **held).count();
        match held {
            _ if observations.is_empty() => Self::NotMeasured,
            0 => Self::DoesNotHold,
            n if n == observations.len() => Self::Holds,
            _ => Self::Depends,
        }
    }
}

/// A statement of the textbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// What it says.
    pub statement: &'static str,
    /// What was measured here.
    pub measured: String,
    /// Whether the one agrees with the other.
    pub verdict: Verdict,
}

/// The figures on which claims are judged.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Where they were measured.
    pub machine: &'a Machine,
    /// Under load.
    pub cells: &'a [CellReport],
    /// Of creation.
    pub costs: &'a [Cost],
    /// Of sharing.
    pub sharing: &'a Sharing,
    /// Of crashes.
    pub isolation: &'a [Isolation],
}

/// Judges every claim.
pub fn judge(evidence: Evidence<'_>) -> Vec<Claim> {
    vec![
        evidence.processes_have_overhead(),
        evidence.threads_are_cheaper(),
        evidence.events_are_lowest(),
        evidence.events_use_one_core(),
        evidence.iterative_blocks(),
        evidence.sharing_is_hard(),
        evidence.one_thread_takes_all(),
    ]
}

impl Evidence<'_> {
    fn processes_have_overhead(self) -> Claim {
        let ratios = self.cpu_ratios("process", "event", Mode::PerRequest);
        let creation = self.cost(Kind::Process).map_or_else(String::new, |cost| {
            let in_cycles = cost.cycles.map_or_else(String::new, |spread| {
                format!(" ({} cycles)", cycles(spread.median))
            });
            format!(
                "creating and reaping a process takes {}{in_cycles}",
                micros(cost.microseconds.median)
            )
        });
        let measured = match ratios[..] {
            [] => creation,
            _ => format!(
                "{creation}; a connection of one request takes {} the processor time that it takes with events",
                times(&ratios)
            ),
        };
        Claim {
            statement: "A process per connection has the overhead of creating processes",
            measured,
            verdict: Verdict::of(ratios.into_iter().map(|ratio| ratio > NOTICEABLE)),
        }
    }

    fn threads_are_cheaper(self) -> Claim {
        let created = |kind| self.cost(kind).map(|cost| cost.microseconds.median);
        let creation: Vec<f64> = created(Kind::Process)
            .zip(created(Kind::Thread))
            .map(|(process, thread)| process / thread)
            .into_iter()
            .collect();
        let fresh = self.cpu_ratios("process", "thread", Mode::PerRequest);
        let kept = self.cpu_ratios("process", "thread", Mode::Persistent);
        let parts = [
            ("to create", &creation),
            ("for a connection of one request", &fresh),
            ("for a request on an open connection", &kept),
        ];
        let measured: Vec<String> = parts
            .iter()
            .filter(|(_, ratios)| !ratios.is_empty())
            .map(|(what, ratios)| format!("{} {what}", times(ratios)))
            .collect();
        let all = [creation, fresh, kept].concat();
        Claim {
            statement: "Threads are cheaper than processes",
            measured: format!(
                "a process takes, of a thread's time: {}",
                measured.join(", ")
            ),
            verdict: Verdict::of(all.into_iter().map(|ratio| ratio > NOTICEABLE)),
        }
    }

    fn events_are_lowest(self) -> Claim {
        let mut lowest = Vec::new();
        let mut below = Vec::new();
        for event in self.cells.iter().filter(|cell| cell.model == "event") {
            let others = self.cells.iter().filter(|cell| {
                cell.model != "event"
                    && (cell.mode, cell.clients) == (event.mode, event.clients)
                    && cell.mode != Mode::Idle
            });
            let least = others
                .filter_map(|cell| cell.cpu_us_per_request)
                .min_by(f64::total_cmp);
            if let Some((own, least)) = event.cpu_us_per_request.zip(least) {
                lowest.push(own <= least * NOTICEABLE);
                below.push(own / least);
            }
        }
        let measured = match below[..] {
            [] => "nothing to compare events with".into(),
            _ => format!(
                "under {} of {} loads nobody needs noticeably less processor time per request; events need {} that of the best other model",
                lowest.iter().filter(|is_lowest| **is_lowest).count(),
                lowest.len(),
                times(&below)
            ),
        };
        Claim {
            statement: "Events have the lowest overhead",
            measured,
            verdict: Verdict::of(lowest),
        }
    }

    fn events_use_one_core(self) -> Claim {
        let busiest = |of_events: bool| {
            self.cells
                .iter()
                .filter(|cell| (cell.model == "event") == of_events)
                .filter_map(|cell| Some((cell.cores?, &cell.model)))
                .max_by(|a, b| a.0.total_cmp(&b.0))
        };
        let (events, others) = (busiest(true), busiest(false));
        let compared = events.zip(others).filter(|_| self.machine.cores > 1);
        let measured = match compared {
            Some(((events, _), (others, model))) => format!(
                "events kept at most {events:.2} of {} cores busy; {model} kept {others:.2} busy",
                self.machine.cores
            ),
            None => "this takes the event model, another one, and more than one core".into(),
        };
        // Where nobody used more than one core, events were not put to the test.
        let verdict = compared.map_or(Verdict::NotMeasured, |((events, _), (others, _))| {
            Verdict::of([events < NOTICEABLE, others > NOTICEABLE])
        });
        Claim {
            statement: "Events use one core only",
            measured,
            verdict,
        }
    }

    fn iterative_blocks(self) -> Claim {
        let cells: Vec<&CellReport> = self
            .cells
            .iter()
            .filter(|cell| cell.model == "iterative")
            .filter(|cell| cell.mode == Mode::Persistent && cell.clients > 1)
            .collect();
        let starving: Vec<String> = cells
            .iter()
            .map(|cell| format!("{} of {}", cell.starved, cell.clients))
            .collect();
        let measured = match cells[..] {
            [] => "this takes the iterative model and several clients that keep their connections"
                .into(),
            _ => format!("clients that never got an answer: {}", starving.join(", ")),
        };
        Claim {
            statement: "An iterative server lets the second client wait for the first",
            measured,
            verdict: Verdict::of(cells.iter().map(|cell| cell.starved > 0)),
        }
    }

    fn sharing_is_hard(self) -> Claim {
        let sharing = self.sharing;
        let of = |seen| {
            format!(
                "{} of {}",
                count(seen as f64),
                count(sharing.updates as f64)
            )
        };
        let measured = format!(
            "of a child's counting its parent sees {} in ordinary memory and {} in shared memory, where an update \
             takes {:.1} ns (a thread's: {:.1} ns); through a pipe it takes {}",
            of(sharing.seen_private),
            of(sharing.seen_shared),
            sharing.shared_ns,
            sharing.thread_ns,
            micros(sharing.pipe_ns / 1000.0)
        );
        // In ordinary memory it cannot be done at all; where it can, it may be as cheap as with threads.
        let needs_a_mechanism = sharing.seen_private == 0;
        let is_dear =
            sharing.seen_shared < sharing.updates || sharing.shared_ns > 2.0 * sharing.thread_ns;
        Claim {
            statement: "Sharing is hard between processes",
            measured,
            verdict: match sharing.updates {
                0 => Verdict::NotMeasured,
                _ => Verdict::of([needs_a_mechanism, is_dear]),
            },
        }
    }

    fn one_thread_takes_all(self) -> Claim {
        let with = |names: &[&str]| -> Vec<&Isolation> {
            self.isolation
                .iter()
                .filter(|isolation| names.contains(&isolation.model.as_str()))
                .collect()
        };
        let say = |isolation: &&Isolation| {
            format!(
                "{}: {} of {} others survived",
                isolation.model,
                isolation.survivors,
                isolation.others()
            )
        };
        let threads = with(&["thread", "prethread"]);
        let processes = with(&["process", "prefork"]);
        let mut measured: Vec<String> = threads.iter().chain(&processes).map(say).collect();
        if threads.is_empty() {
            measured.insert(0, "this takes a model of threads".into());
        }
        Claim {
            statement: "One bad thread takes all others with it",
            measured: measured.join("; "),
            verdict: Verdict::of(threads.iter().map(|isolation| isolation.lost_all())),
        }
    }

    fn cost(&self, kind: Kind) -> Option<&Cost> {
        self.costs.iter().find(|cost| cost.kind == kind)
    }

    /// The processor time per request of one model as a multiple of another's, for each number of clients.
    fn cpu_ratios(self, model: &str, other: &str, mode: Mode) -> Vec<f64> {
        let of = |name: &str| -> Vec<(usize, f64)> {
            self.cells
                .iter()
                .filter(|cell| cell.model == name && cell.mode == mode)
                .filter_map(|cell| Some((cell.clients, cell.cpu_us_per_request?)))
                .collect()
        };
        let others = of(other);
        of(model)
            .into_iter()
            .filter_map(|(clients, cpu)| {
                let (_, other) = others.iter().find(|(n, _)| *n == clients)?;
                (*other > 0.0).then(|| cpu / other)
            })
            .collect()
    }
}

fn times(ratios: &[f64]) -> String {
    range(ratios, ratio)
}

#[cfg(test)]
mod tests;
