//! What a list costs where a tracker knows many peers.

use super::{Paint, ends, starved};
use crate::compare::cell::CellReport;
use crate::compare::registry::Filled;
use crate::compare::units::{count, cycles, kib, micros, plural, ratio};

/// The heading, in words.
pub fn title(filled: &Filled) -> String {
    format!(
        "A list, where a tracker knows {} peers of {} files, {}",
        cycles(f64::from(filled.peers)),
        cycles(filled.files as f64),
        plural(filled.full.clients, "client")
    )
}

/// A row for the empty registry and one for the full one, of each model.
pub fn table(registry: &[Filled], paint: Paint) -> Vec<String> {
    let Some(first) = registry.first() else {
        return Vec::new();
    };
    let mut lines = vec![
        String::new(),
        paint.heading(&title(first)),
        paint.faint(&format!(
            "{:<9} {:<8} {:>7} {:>13} {:>6} {:>6} {:>7} {:>5} {:>6}",
            "", "registry", "conn/s", "min–max", "p50", "p99", "CPU", "PSS", "cost"
        )),
    ];
    for filled in registry {
        lines.push(row(
            &filled.empty,
            &filled.empty.model,
            "empty",
            None,
            paint,
        ));
        lines.push(row(&filled.full, "", "full", filled.cost, paint));
    }
    lines.push(paint.faint("cost: processor time per request, full to empty, children included"));
    lines
}

fn row(cell: &CellReport, model: &str, what: &str, cost: Option<f64>, paint: Paint) -> String {
    let (Some(rate), Some(latency)) = (cell.rate(), cell.latency_us) else {
        return format!("{model:<9} {what:<8} {}", paint.mixed(&starved(cell)));
    };
    format!(
        "{model:<9} {what:<8} {:>7} {:>13} {:>6} {:>6} {:>7} {:>5} {:>6}",
        count(rate.median),
        ends(rate, count),
        micros(latency.p50),
        micros(latency.p99),
        cell.cpu_us_per_request.map_or_else(String::new, micros),
        cell.memory_kib
            .map_or_else(String::new, |memory| kib(memory.median)),
        cost.map_or_else(String::new, ratio),
    )
}
