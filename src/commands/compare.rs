//! `cascade compare`: which server model, for which load.

use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Status, print};
use crate::cli::Compare;
use crate::compare::cell::CellReport;
use crate::compare::claims::{self, Evidence};
use crate::compare::cost;
use crate::compare::harness::Fixture;
use crate::compare::html;
use crate::compare::isolation::{self, Isolation};
use crate::compare::machine::Machine;
use crate::compare::measure;
use crate::compare::part::Stop;
use crate::compare::plan::{Plan, ServiceKind};
use crate::compare::registry::{self, Filled};
use crate::compare::report::{self, FORMAT, Report};
use crate::compare::sandbox::{self, Sandboxed};
use crate::compare::terminal::{self, Paint};
use crate::confine::{ConfineOptions, Confinement};
use crate::output::is_coloured;
use crate::server::Model;
use crate::store::atomic::{self, Existing};
use crate::sys::signals;
use crate::text::escape_path;

/// Descriptors that a server or a generator needs beside its connections.
const OTHER_DESCRIPTORS: u64 = 128;

/// Measures, judges, and says what was found.
///
/// # Errors
/// Where a server or a generator fails, or a file cannot be written.
pub fn run(options: &Compare) -> anyhow::Result<Status> {
    let stop = Stop::new().context("cannot catch signals")?;
    let report = match compare(options, &stop) {
        Ok(report) => report,
        Err(error) => match stop.signal() {
            // Every process of the comparison is gone by now, and so are its files.
            Some(signal) => signals::die_of(signal),
            None => return Err(error),
        },
    };
    if let Some(path) = &options.json {
        let mut json = serde_json::to_vec_pretty(&report)?;
        json.push(b'\n');
        write(path, &json)?;
    }
    if let Some(path) = &options.html {
        write(path, html::render(&report).as_bytes())?;
    }
    print(format_args!(
        "{}",
        terminal::render(&report, Paint(is_coloured()))
    ))?;
    Ok(Status::Done)
}

fn compare(options: &Compare, stop: &Stop) -> anyhow::Result<Report> {
    let began = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let clock = Instant::now();
    let plan = plan(options);
    allow_descriptors(&plan)?;
    let progress = progress(&plan);

    let cells = measure_cells(&plan, stop, &progress)?;
    progress.set_message("flows of control");
    let costs = cost::measure(plan.rounds, stop).context("cannot measure flows of control")?;
    let sharing = cost::sharing(stop).context("cannot measure sharing")?;
    let isolation = measure_isolation(&plan, stop, &progress)?;
    let registry = measure_registry(&plan, stop, &progress)?;
    let sandbox = measure_sandbox(&plan, stop, &progress)?;
    progress.finish_and_clear();

    let machine = Machine::here();
    let claims = claims::judge(Evidence {
        machine: &machine,
        cells: &cells,
        costs: &costs,
        sharing: &sharing,
        isolation: &isolation,
    });
    Ok(Report {
        format: FORMAT,
        program: concat!("cascade ", env!("CARGO_PKG_VERSION")).into(),
        began,
        took: clock.elapsed().as_secs_f64(),
        machine,
        service: plan.service,
        models: plan.names(),
        clients: plan.clients,
        duration: options.duration.as_secs_f64(),
        rounds: plan.rounds,
        noise: report::noise(&cells),
        cells,
        costs,
        sharing,
        isolation,
        registry,
        sandbox,
        claims,
    })
}

fn plan(options: &Compare) -> Plan {
    let mut clients: Vec<usize> = options.clients.iter().map(|n| usize::from(*n)).collect();
    clients.sort_unstable();
    clients.dedup();
    Plan {
        service: options.service,
        models: options.models.clone(),
        clients,
        duration: options.duration,
        rounds: usize::from(options.rounds),
    }
}

/// Generator and servers inherit the limit.
fn allow_descriptors(plan: &Plan) -> anyhow::Result<()> {
    let most = plan.clients.iter().max().copied().unwrap_or(1) as u64;
    // In the idle cell there are active ones beside them.
    let needed = 2 * most + OTHER_DESCRIPTORS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read limits")?;
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard).context("cannot set limits")?;
    }
    anyhow::ensure!(
        hard >= needed,
        "cannot connect {most} clients: at most {hard} files may be open"
    );
    Ok(())
}

fn measure_cells(
    plan: &Plan,
    stop: &Stop,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<CellReport>> {
    let fixture = Fixture::new(plan.service).context("cannot write the file to serve")?;
    let cells = plan.cells();
    let mut rounds: Vec<Vec<_>> = vec![Vec::new(); cells.len()];
    for round in 0..plan.rounds {
        for at in plan.order(round) {
            let cell = &cells[at];
            let name = &cell.subject.name;
            progress.set_message(format!("round {}: {name}", round + 1));
            let measured = measure::round(plan, cell, &fixture, stop)
                .with_context(|| format!("cannot measure {name} with {} clients", cell.clients))?;
            rounds[at].push(measured);
            progress.inc(1);
        }
    }
    let mut reports: Vec<CellReport> = cells
        .iter()
        .zip(rounds)
        .map(|(cell, rounds)| measure::summary(cell, rounds))
        .collect();
    measure::relate_to_generator(&mut reports);
    Ok(reports)
}

fn measure_isolation(
    plan: &Plan,
    stop: &Stop,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<Isolation>> {
    different_models(plan)
        .into_iter()
        .map(|model| {
            progress.set_message(format!("crash: {model}"));
            let measured = isolation::measure(model, stop);
            progress.inc(1);
            measured.with_context(|| format!("cannot measure a crash of {model}"))
        })
        .collect()
}

/// Only a tracker has a registry.
fn measure_registry(
    plan: &Plan,
    stop: &Stop,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<Filled>> {
    if plan.service != ServiceKind::Tracker {
        return Ok(Vec::new());
    }
    different_models(plan)
        .into_iter()
        .map(|model| {
            progress.set_message(format!("full registry: {model}"));
            let measured = registry::measure(plan, model, stop);
            progress.inc(1);
            measured.with_context(|| format!("cannot measure a full registry under {model}"))
        })
        .collect()
}

/// Only of the model that is to confine a process for each connection, where that is compared.
fn measure_sandbox(
    plan: &Plan,
    stop: &Stop,
    progress: &ProgressBar,
) -> anyhow::Result<Option<Sandboxed>> {
    if !plan.models.contains(&sandbox::MODEL) {
        return Ok(None);
    }
    progress.set_message("sandbox");
    let fixture = Fixture::new(plan.service).context("cannot write the file to serve")?;
    let in_force = Confinement::new(&ConfineOptions::default())?.to_string();
    let measured = sandbox::measure(plan, &fixture, in_force, stop);
    measured
        .map(Some)
        .context("cannot measure what the sandbox costs")
}

fn different_models(plan: &Plan) -> Vec<Model> {
    let mut models = plan.models.clone();
    models.sort_unstable();
    models.dedup();
    models
}

/// Progress on a terminal's standard error; elsewhere nothing. It never ticks by itself, which would take a thread
/// and processor time from what is measured.
fn progress(plan: &Plan) -> ProgressBar {
    let at_the_end = match plan.service {
        ServiceKind::Tracker => 2,
        ServiceKind::Echo | ServiceKind::Block => 1,
    };
    let steps = plan.cells().len() * plan.rounds + at_the_end * different_models(plan).len();
    let bar = ProgressBar::new(steps as u64);
    // A template of ours is valid; without it the bar only looks different.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} {msg:<24}") {
        bar.set_style(style);
    }
    bar
}

fn write(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    atomic::write(path, contents, Existing::Replace)
        .with_context(|| format!("cannot write {}", escape_path(path)))
}
