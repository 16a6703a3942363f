//! A made-up report, for the tests of what is made of reports.

use super::cell::{CellReport, IdleMemory};
use super::claims::{Claim, Verdict};
use super::cost::{Cost, Kind, Sharing};
use super::isolation::Isolation;
use super::machine::Machine;
use super::plan::{Mode, ServiceKind};
use super::registry::Filled;
use super::report::{FORMAT, Report};
use super::sandbox::Sandboxed;
use super::stats::{Latency, Spread};

fn spread(median: f64) -> Spread {
    Spread {
        median,
        min: median * 0.9,
        max: median * 1.1,
    }
}

/// A cell with all its figures.
fn cell(model: &str, mode: Mode, clients: usize, rate: f64) -> CellReport {
    let is_model = model != "generator";
    CellReport {
        model: model.into(),
        mode,
        clients,
        idle: if mode == Mode::Idle { 256 } else { 0 },
        starved: 0,
        requests: 123_456,
        errors: 0,
        connections_per_second: None,
        requests_per_second: Some(spread(rate)),
        latency_us: Some(Latency {
            p50: 812.3,
            p99: 1_234.5,
            p999: 22_345.6,
            max: 99_999.9,
        }),
        cpu_us_per_request: is_model.then_some(112.3),
        cores: is_model.then_some(1.3),
        memory_kib: is_model.then(|| spread(23_456.0)),
        idle_memory: (mode == Mode::Idle).then_some(IdleMemory {
            served: 256,
            before_kib: 812.0,
            with_kib: 62_345.0,
            per_connection_kib: Some(240.4),
        }),
        of_generator: is_model.then_some(0.95),
    }
}

fn starving(mut cell: CellReport, starved: usize) -> CellReport {
    cell.starved = starved;
    cell.requests_per_second = None;
    cell.latency_us = None;
    cell.cpu_us_per_request = None;
    cell
}

fn isolation(model: &str, survivors: usize) -> Isolation {
    Isolation {
        model: model.into(),
        clients: 16,
        served: 16,
        crashed: true,
        survivors,
        new_served: survivors > 0,
    }
}

/// A report of two models under every kind of load, as wide as figures get.
pub fn report() -> Report {
    let cost = |kind, microseconds| Cost {
        kind,
        microseconds: spread(microseconds),
        cycles: Some(spread(microseconds * 2600.0)),
        textbook_cycles: (kind == Kind::Process).then_some(20_000),
    };
    Report {
        format: FORMAT,
        program: "cascade 0.1.0".into(),
        began: 1_763_900_000,
        took: 101.0,
        machine: Machine::here(),
        service: ServiceKind::Echo,
        models: vec!["iterative".into(), "process".into()],
        clients: vec![1, 16],
        duration: 1.25,
        rounds: 5,
        noise: Some(0.5),
        cells: vec![
            cell("generator", Mode::PerRequest, 1, 24_567.0),
            cell("iterative", Mode::PerRequest, 1, 14_567.0),
            cell("process", Mode::PerRequest, 1, 8_123.0),
            cell("generator", Mode::PerRequest, 16, 24_567.0),
            cell("iterative", Mode::PerRequest, 16, 14_567.0),
            cell("process", Mode::PerRequest, 16, 8_123.0),
            starving(cell("iterative", Mode::Persistent, 16, 1.0), 15),
            cell("process", Mode::Persistent, 16, 123_456.0),
            starving(cell("iterative", Mode::Idle, 16, 1.0), 16),
            cell("process", Mode::Idle, 16, 112_345.0),
        ],
        costs: vec![
            cost(Kind::Process, 80.0),
            cost(Kind::ProcessPrivate, 1234.0),
            cost(Kind::ProcessShared, 82.0),
            cost(Kind::Thread, 20.0),
        ],
        sharing: Sharing::default(),
        registry: vec![Filled {
            peers: 1_000_000,
            files: 1000,
            empty: cell("process", Mode::PerRequest, 16, 18_123.0),
            full: cell("process", Mode::PerRequest, 16, 16_789.0),
            cost: Some(1.07),
        }],
        sandbox: Some(Sandboxed {
            in_force: "sandbox: no new privileges, limits, Landlock 7, system calls filtered"
                .into(),
            confined: cell("confined", Mode::PerRequest, 16, 18_123.0),
            unconfined: cell("not confined", Mode::PerRequest, 16, 18_589.0),
            rate: Some(spread(0.97)),
        }),
        isolation: vec![isolation("iterative", 0), isolation("process", 15)],
        claims: vec![
            Claim {
                statement: "An iterative server lets the second client wait for the first",
                measured: "clients that never got an answer ".repeat(5).trim().into(),
                verdict: Verdict::Holds,
            },
            Claim {
                statement: "Threads <are> cheaper",
                measured: "2 & 3".into(),
                verdict: Verdict::DoesNotHold,
            },
        ],
    }
}
