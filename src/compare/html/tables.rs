//! The page's tables, in which every figure can be looked up.

use crate::compare::cell::CellReport;
use crate::compare::plan::Mode;
use crate::compare::registry::Filled;
use crate::compare::report::Report;
use crate::compare::sandbox::Sandboxed;
use crate::compare::stats::{Latency, Spread};
use crate::compare::terminal::load_title;
use crate::compare::terminal::registry::title;
use crate::compare::terminal::sandbox;
use crate::compare::units::{count, cycles, kib, micros, plural, ratio};
use crate::text::escape_markup;

/// A table for each load, and one of costs.
pub fn all(report: &Report) -> String {
    let mut body = String::new();
    for (mode, clients, idle) in report.loads() {
        let cells: Vec<&CellReport> = report.load(mode, clients).collect();
        let (heads, rows): (&[&str], String) = match mode {
            Mode::Idle => (
                &IDLE_HEADS,
                cells.iter().map(|cell| idle_row(cell)).collect(),
            ),
            _ => (
                &LOAD_HEADS,
                cells.iter().map(|cell| load_row(cell)).collect(),
            ),
        };
        body += &table(&load_title(mode, clients, idle), heads, &rows);
    }
    body += &table(
        "To create a flow of control",
        &COST_HEADS,
        &cost_rows(report),
    );
    body
}

/// What a list costs where a tracker knows nobody, and where it knows many.
pub fn registry(registry: &[Filled]) -> String {
    let Some(first) = registry.first() else {
        return String::new();
    };
    let rows: String = registry
        .iter()
        .flat_map(|filled| {
            [
                (&filled.empty, "empty", None),
                (&filled.full, "full", filled.cost),
            ]
        })
        .map(|(cell, what, cost)| registry_row(cell, what, cost))
        .collect();
    table(&title(first), &REGISTRY_HEADS, &rows)
}

fn registry_row(cell: &CellReport, what: &str, cost: Option<f64>) -> String {
    let name = format!("{}, {what}", cell.model);
    let (Some(rate), Some(latency)) = (cell.rate(), cell.latency_us) else {
        return starved_row(cell, REGISTRY_HEADS.len() - 1);
    };
    row(
        &name,
        &[
            count(rate.median),
            ends(rate, count),
            micros(latency.p50),
            micros(latency.p99),
            micros(latency.p999),
            cell.cpu_us_per_request.map_or_else(String::new, micros),
            cell.memory_kib
                .map_or_else(String::new, |memory| kib(memory.median)),
            cost.map_or_else(String::new, ratio),
        ],
    )
}

/// What the confinement of a server costs.
pub fn sandbox(sandboxed: Option<&Sandboxed>) -> String {
    let Some(sandboxed) = sandboxed else {
        return String::new();
    };
    let cells = [&sandboxed.confined, &sandboxed.unconfined];
    let rows: String = cells.map(load_row).concat();
    let words = escape_markup(&sandbox::in_words(sandboxed));
    let table = table(&sandbox::title(sandboxed), &LOAD_HEADS, &rows);
    format!("{table}<p>{words}</p>\n")
}

const REGISTRY_HEADS: [&str; 9] = [
    "model, registry",
    "per second",
    "min–max",
    "p50",
    "p99",
    "p99.9",
    "CPU per request",
    "PSS",
    "CPU, full to empty",
];
const LOAD_HEADS: [&str; 10] = [
    "model",
    "per second",
    "min–max",
    "p50",
    "p99",
    "p99.9",
    "CPU per request",
    "cores busy",
    "PSS",
    "errors",
];
const IDLE_HEADS: [&str; 8] = [
    "model",
    "memory per connection",
    "served",
    "memory empty",
    "with them",
    "req/s beside",
    "p50",
    "p99",
];
const COST_HEADS: [&str; 5] = ["kind", "time", "min–max", "cycles", "textbook's cycles"];

fn table(caption: &str, heads: &[&str], rows: &str) -> String {
    let heads: String = heads
        .iter()
        .map(|head| format!("<th scope=\"col\">{head}</th>"))
        .collect();
    format!(
        "<h3>{}</h3>\n<div class=\"wide\"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n",
        escape_markup(caption)
    )
}

fn row(name: &str, figures: &[String]) -> String {
    let figures: String = figures
        .iter()
        .map(|figure| format!("<td>{figure}</td>"))
        .collect();
    format!(
        "<tr><th scope=\"row\">{}</th>{figures}</tr>\n",
        escape_markup(name)
    )
}

fn starved_row(cell: &CellReport, columns: usize) -> String {
    format!(
        "<tr><th scope=\"row\">{}</th><td class=\"starved\" colspan=\"{columns}\">starved: {}</td></tr>\n",
        escape_markup(&cell.model),
        plural(cell.starved, "client")
    )
}

fn load_row(cell: &CellReport) -> String {
    let (Some(rate), Some(latency)) = (cell.rate(), cell.latency_us) else {
        return starved_row(cell, LOAD_HEADS.len() - 1);
    };
    row(
        &cell.model,
        &[
            count(rate.median),
            ends(rate, count),
            micros(latency.p50),
            micros(latency.p99),
            micros(latency.p999),
            cell.cpu_us_per_request.map_or_else(String::new, micros),
            cell.cores
                .map_or_else(String::new, |cores| format!("{cores:.2}")),
            cell.memory_kib
                .map_or_else(String::new, |memory| kib(memory.median)),
            cell.errors.to_string(),
        ],
    )
}

fn idle_row(cell: &CellReport) -> String {
    let Some(memory) = cell.idle_memory else {
        return String::new();
    };
    let starved = || format!("starved: {}", cell.starved);
    let latency = |figure: fn(Latency) -> f64| {
        cell.latency_us
            .map_or_else(String::new, |latency| micros(figure(latency)))
    };
    row(
        &cell.model,
        &[
            memory.per_connection_kib.map_or_else(String::new, kib),
            memory.served.to_string(),
            kib(memory.before_kib),
            kib(memory.with_kib),
            cell.rate().map_or_else(starved, |rate| count(rate.median)),
            latency(|latency| latency.p50),
            latency(|latency| latency.p99),
        ],
    )
}

fn cost_rows(report: &Report) -> String {
    report
        .costs
        .iter()
        .map(|cost| {
            row(
                cost.kind.describe(),
                &[
                    micros(cost.microseconds.median),
                    ends(cost.microseconds, micros),
                    cost.cycles
                        .map_or_else(String::new, |spread| cycles(spread.median)),
                    cost.textbook_cycles
                        .map_or_else(String::new, |figure| cycles(figure as f64)),
                ],
            )
        })
        .collect()
}

fn ends(spread: Spread, format: fn(f64) -> String) -> String {
    format!("{}–{}", format(spread.min), format(spread.max))
}
