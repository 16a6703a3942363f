//! Measures cells: a server, a generator, and what /proc says of the server meanwhile.

use std::io;
use std::time::Duration;

use super::cell::{CellReport, IdleMemory};
use super::harness::{Fixture, Server};
use super::load::{Go, Order, Prepared, Sample};
use super::part::{Complaints, Part, Stop};
use super::plan::{Cell, Mode, Plan};
use super::proc::Pss;
use super::stats::{self, Latency, Spread};
use super::traffic::Traffic;

/// How long a generator may take beyond the time that it measures.
const SLACK: Duration = Duration::from_secs(30);
/// How long a server is left alone before its memory without connections is looked at.
const SETTLING: Duration = Duration::from_millis(50);

/// One cell in one round.
#[derive(Debug, Clone)]
pub struct Round {
    sample: Sample,
    /// The server's processor time while it was measured, in seconds; none for the generator itself.
    cpu: Option<f64>,
    /// The server's memory; none for the generator itself.
    memory: Option<Memory>,
    idle_served: usize,
}

impl Round {
    /// Requests per second; none where some clients had no answer.
    pub fn rate(&self) -> Option<f64> {
        let Sample {
            seconds,
            requests,
            starved,
            ..
        } = self.sample;
        (starved == 0 && requests > 0 && seconds > 0.0).then(|| requests as f64 / seconds)
    }
}

/// Memory of a server, in KiB.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Memory {
    /// Its own before the first connection, without the pages of files.
    before: f64,
    /// The same with the idle connections.
    idle: f64,
    /// All of it at the end.
    end: f64,
}

/// Measures a cell once. Server and generator are new each time: nothing of another cell is in them.
///
/// # Errors
/// Where a process of the comparison fails, or a signal stops it. A server that does not answer is no error.
pub fn round(plan: &Plan, cell: &Cell, fixture: &Fixture, stop: &Stop) -> io::Result<Round> {
    let server = match cell.subject.model {
        Some(model) => Some(Server::start(plan.service, model, &[], fixture, stop)?),
        None => None,
    };
    observe(
        server.as_ref(),
        &order(plan, cell, fixture, server.as_ref()),
        stop,
    )
}

/// Measures a server that is there, or none, once.
///
/// # Errors
/// As [`round`].
pub fn observe(server: Option<&Server>, order: &Order, stop: &Stop) -> io::Result<Round> {
    let look = |at: Mode| match server {
        // Memory is of interest for idle connections only, before they are measured.
        Some(server) if order.mode == at => server.pss(),
        _ => Ok(Pss::default()),
    };
    if order.mode == Mode::Idle {
        // A server says where it listens before its pool is there, which is no connection's cost.
        std::thread::sleep(SETTLING);
    }
    let before = look(Mode::Idle)?;
    let mut generator = Part::start::<&str>("load", &[], Complaints::Shown)?;
    let limit = order.window + SLACK;
    generator.order(order)?;
    let prepared: Prepared = generator.answer(stop, limit)?;
    let idle = look(Mode::Idle)?;
    let cpu_before = cpu(server)?;
    generator.order(&Go)?;
    let sample: Sample = generator.answer(stop, limit)?;
    let cpu_used = cpu(server)? - cpu_before;
    let end = look(order.mode)?;
    Ok(Round {
        sample,
        cpu: server.is_some().then_some(cpu_used),
        memory: server.is_some().then_some(Memory {
            before: before.own as f64,
            idle: idle.own as f64,
            end: end.total as f64,
        }),
        idle_served: prepared.idle_served,
    })
}

/// What the generator is to do in this cell.
fn order(plan: &Plan, cell: &Cell, fixture: &Fixture, server: Option<&Server>) -> Order {
    Order {
        server: server.map(|server| server.address),
        traffic: Traffic::new(plan.service, fixture.hash),
        mode: cell.mode,
        clients: cell.clients,
        idle: cell.idle,
        window: plan.window(),
    }
}

/// Seconds of processor time that the server has used.
fn cpu(server: Option<&Server>) -> io::Result<f64> {
    server.map_or(Ok(0.0), |server| server.usage().map(|usage| usage.cpu))
}

/// Puts the rounds of a cell together.
pub fn summary(cell: &Cell, rounds: Vec<Round>) -> CellReport {
    let samples: Vec<Sample> = rounds.iter().map(|round| round.sample.clone()).collect();
    let starved = stats::starved(&samples);
    let served = starved == 0;
    let rate = |count: fn(&Sample) -> u64| {
        let rates = samples
            .iter()
            .filter(|sample| sample.seconds > 0.0)
            .map(|sample| count(sample) as f64 / sample.seconds);
        Spread::of(rates).filter(|_| served)
    };
    let requests: u64 = samples.iter().map(|sample| sample.requests).sum();
    let seconds: f64 = samples.iter().map(|sample| sample.seconds).sum();
    let cpu: Option<f64> = rounds.iter().map(|round| round.cpu).sum();
    let cpu = cpu.filter(|_| served && requests > 0);
    // With a connection held there is none per second, and a handful of new ones is noise.
    let connections = match cell.mode {
        Mode::PerRequest => rate(|sample| sample.connections),
        Mode::Persistent | Mode::Idle => None,
    };
    CellReport {
        model: cell.subject.name.clone(),
        mode: cell.mode,
        clients: cell.clients,
        idle: cell.idle,
        starved,
        requests,
        errors: samples.iter().map(|sample| sample.errors).sum(),
        connections_per_second: connections,
        requests_per_second: rate(|sample| sample.requests),
        latency_us: Latency::of(&samples).filter(|_| served),
        cpu_us_per_request: cpu.map(|cpu| cpu * 1e6 / requests as f64),
        cores: cpu.map(|cpu| cpu / seconds),
        memory_kib: Spread::of(rounds.iter().filter_map(|round| Some(round.memory?.end))),
        idle_memory: idle_memory(cell, &rounds),
        of_generator: None,
    }
}

fn idle_memory(cell: &Cell, rounds: &[Round]) -> Option<IdleMemory> {
    if cell.mode != Mode::Idle {
        return None;
    }
    let median = |figure: fn(Memory) -> f64| {
        let figures = rounds.iter().filter_map(|round| round.memory.map(figure));
        Spread::of(figures).map(|spread| spread.median)
    };
    let before = median(|memory| memory.before)?;
    let with = median(|memory| memory.idle)?;
    let served = Spread::of(rounds.iter().map(|round| round.idle_served as f64))?.median as usize;
    Some(IdleMemory {
        served,
        before_kib: before,
        with_kib: with,
        per_connection_kib: (served > 0).then(|| (with - before).max(0.0) / served as f64),
    })
}

/// Notes how near each cell comes to the generator's own limit under the same load.
pub fn relate_to_generator(cells: &mut [CellReport]) {
    let limits: Vec<_> = cells
        .iter()
        .filter(|cell| cell.model == "generator")
        .filter_map(|cell| Some((cell.mode, cell.clients, cell.rate()?.median)))
        .collect();
    for cell in cells {
        let limit = limits
            .iter()
            .find(|(mode, clients, _)| (*mode, *clients) == (cell.mode, cell.clients));
        cell.of_generator = match (limit, cell.rate()) {
            (Some((_, _, limit)), Some(rate)) if *limit > 0.0 => Some(rate.median / limit),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::plan::Subject;
    use crate::server::Model;

    fn cell(mode: Mode) -> Cell {
        Cell {
            subject: Subject {
                name: "process".into(),
                model: Some(Model::Process),
            },
            mode,
            clients: 4,
            idle: 10,
        }
    }

    fn one(requests: u64, starved: usize) -> Round {
        Round {
            sample: Sample {
                seconds: 0.5,
                requests,
                starved,
                latencies: [(1000, requests)].into(),
                ..Sample::default()
            },
            cpu: Some(0.25),
            memory: Some(Memory {
                before: 100.0,
                idle: 300.0,
                end: 400.0,
            }),
            idle_served: 10,
        }
    }

    #[test]
    fn figures_are_per_second_and_per_request() {
        let report = summary(
            &cell(Mode::Persistent),
            vec![one(100, 0), one(300, 0), one(200, 0)],
        );
        let rate = report.requests_per_second.expect("a rate");
        assert_eq!((rate.min, rate.median, rate.max), (200.0, 400.0, 600.0));
        assert_eq!(report.cpu_us_per_request, Some(1250.0));
        assert_eq!(report.cores, Some(0.5));
        assert_eq!(report.idle_memory, None);
    }

    #[test]
    fn where_clients_starve_there_is_no_average() {
        let report = summary(&cell(Mode::Persistent), vec![one(100, 3); 3]);
        assert_eq!(report.starved, 3);
        assert_eq!(report.requests_per_second, None);
        assert_eq!(report.latency_us, None);
        assert_eq!(report.cpu_us_per_request, None);
    }

    #[test]
    fn an_idle_connection_costs_its_share_of_the_growth() {
        let report = summary(&cell(Mode::Idle), vec![one(100, 0)]);
        let memory = report.idle_memory.expect("memory");
        assert_eq!(memory.per_connection_kib, Some(20.0));
    }

    #[test]
    fn rates_are_related_to_the_generator_under_the_same_load() {
        let report = summary(&cell(Mode::Persistent), vec![one(190, 0)]);
        let mut generator = summary(&cell(Mode::Persistent), vec![one(200, 0)]);
        generator.model = "generator".into();
        let mut cells = [generator, report];
        relate_to_generator(&mut cells);
        assert_eq!(cells[1].of_generator, Some(0.95));
        assert!(cells[1].is_near_limit() && !cells[0].is_near_limit());
    }
}
