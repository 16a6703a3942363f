//! What the confinement of a server costs.

use super::{Paint, ends, starved, wrapped};
use crate::compare::cell::CellReport;
use crate::compare::sandbox::{MODEL, Sandboxed};
use crate::compare::units::{count, kib, micros, per_cent, plural};

/// The heading, in words.
pub fn title(sandboxed: &Sandboxed) -> String {
    let clients = plural(sandboxed.confined.clients, "client");
    format!("The sandbox, under {MODEL}, {clients}, a connection per request")
}

/// What the figures say.
pub fn in_words(sandboxed: &Sandboxed) -> String {
    let rate = sandboxed.rate.map_or_else(String::new, |rate| {
        format!(
            "connections with the sandbox to those without: {}, {} to {} in single turns; ",
            per_cent(rate.median),
            per_cent(rate.min),
            per_cent(rate.max)
        )
    });
    format!("{rate}{}", sandboxed.in_force)
}

/// A row with it and one without.
pub fn table(sandboxed: Option<&Sandboxed>, paint: Paint) -> Vec<String> {
    let Some(sandboxed) = sandboxed else {
        return Vec::new();
    };
    let mut lines = vec![
        String::new(),
        paint.heading(&title(sandboxed)),
        paint.faint(&format!(
            "{:<13} {:>7} {:>13} {:>6} {:>6} {:>7} {:>5}",
            "", "conn/s", "min–max", "p50", "p99", "CPU", "PSS"
        )),
    ];
    lines.extend([&sandboxed.confined, &sandboxed.unconfined].map(|cell| row(cell, paint)));
    let words = wrapped(&in_words(sandboxed), 0);
    lines.extend(words.iter().map(|line| paint.faint(line)));
    lines
}

fn row(cell: &CellReport, paint: Paint) -> String {
    let name = &cell.model;
    let (Some(rate), Some(latency)) = (cell.rate(), cell.latency_us) else {
        return format!("{name:<13} {}", paint.mixed(&starved(cell)));
    };
    format!(
        "{name:<13} {:>7} {:>13} {:>6} {:>6} {:>7} {:>5}",
        count(rate.median),
        ends(rate, count),
        micros(latency.p50),
        micros(latency.p99),
        cell.cpu_us_per_request.map_or_else(String::new, micros),
        cell.memory_kib
            .map_or_else(String::new, |memory| kib(memory.median)),
    )
}
