use super::*;
use crate::compare::stats::Spread;

fn cell(model: &str, mode: Mode, clients: usize, cpu: Option<f64>, starved: usize) -> CellReport {
    CellReport {
        model: model.into(),
        mode,
        clients,
        idle: 0,
        starved,
        requests: 1000,
        errors: 0,
        connections_per_second: None,
        requests_per_second: None,
        latency_us: None,
        cpu_us_per_request: cpu,
        cores: cpu.map(|_| if model == "event" { 0.9 } else { 1.6 }),
        memory_kib: None,
        idle_memory: None,
        of_generator: None,
    }
}

fn cost(kind: Kind, microseconds: f64) -> Cost {
    Cost {
        kind,
        microseconds: Spread::of([microseconds]).expect("a figure"),
        cycles: None,
        textbook_cycles: None,
    }
}

fn isolation(model: &str, survivors: usize, new_served: bool) -> Isolation {
    Isolation {
        model: model.into(),
        clients: 16,
        served: 16,
        crashed: true,
        survivors,
        new_served,
    }
}

/// The verdicts on these figures, in the order of the claims.
fn verdicts(cells: &[CellReport], sharing: &Sharing, isolation: &[Isolation]) -> Vec<Verdict> {
    let machine = Machine {
        cores: 2,
        ..Machine::here()
    };
    let evidence = Evidence {
        machine: &machine,
        cells,
        costs: &[cost(Kind::Process, 80.0), cost(Kind::Thread, 20.0)],
        sharing,
        isolation,
    };
    judge(evidence)
        .into_iter()
        .map(|claim| claim.verdict)
        .collect()
}

fn sharing(shared_ns: f64) -> Sharing {
    Sharing {
        updates: 100,
        seen_shared: 100,
        seen_thread: 100,
        thread_ns: 5.0,
        shared_ns,
        pipe_ns: 900.0,
        ..Sharing::default()
    }
}

#[test]
fn the_textbook_is_right_where_the_figures_say_so() {
    let cells = [
        cell("process", Mode::PerRequest, 4, Some(90.0), 0),
        cell("thread", Mode::PerRequest, 4, Some(45.0), 0),
        cell("event", Mode::PerRequest, 4, Some(30.0), 0),
        cell("iterative", Mode::Persistent, 4, None, 3),
    ];
    let isolation = [
        isolation("thread", 0, false),
        isolation("process", 15, true),
    ];
    assert_eq!(
        verdicts(&cells, &sharing(50.0), &isolation),
        [Verdict::Holds; 7]
    );
}

#[test]
fn it_depends_where_the_loads_disagree() {
    let cells = [
        cell("process", Mode::PerRequest, 1, Some(90.0), 0),
        cell("process", Mode::Persistent, 1, Some(5.0), 0),
        cell("thread", Mode::PerRequest, 1, Some(45.0), 0),
        cell("thread", Mode::Persistent, 1, Some(5.0), 0),
        cell("event", Mode::PerRequest, 1, Some(30.0), 0),
        cell("event", Mode::Persistent, 1, Some(7.0), 0),
    ];
    let verdicts = verdicts(&cells, &sharing(5.0), &[]);
    assert_eq!(verdicts[1], Verdict::Depends, "threads");
    assert_eq!(verdicts[2], Verdict::Depends, "events");
    assert_eq!(verdicts[5], Verdict::Depends, "sharing");
}

#[test]
fn it_is_wrong_where_the_figures_contradict_it() {
    let cells = [
        cell("process", Mode::PerRequest, 4, Some(30.0), 0),
        cell("event", Mode::PerRequest, 4, Some(60.0), 0),
        cell("iterative", Mode::Persistent, 4, Some(5.0), 0),
    ];
    let verdicts = verdicts(&cells, &sharing(5.0), &[isolation("thread", 15, true)]);
    for claim in [0, 2, 4, 6] {
        assert_eq!(verdicts[claim], Verdict::DoesNotHold, "{claim}");
    }
}

#[test]
fn nothing_is_said_about_what_was_left_out() {
    let verdicts = verdicts(&[], &Sharing::default(), &[]);
    assert_eq!(verdicts[1], Verdict::Holds, "creation is always measured");
    for claim in [0, 2, 3, 4, 5, 6] {
        assert_eq!(verdicts[claim], Verdict::NotMeasured, "{claim}");
    }
}
