//! The report on a terminal of 80 columns.

pub mod registry;
pub mod sandbox;

use super::cell::CellReport;
use super::claims::{Claim, Verdict};
use super::cost::Cost;
use super::isolation::Isolation;
use super::plan::Mode;
use super::report::Report;
use super::stats::Spread;
use super::units::{count, cycles, kib, micros, plural};
use crate::layout::{bar, wrapped};

/// Columns of a bar.
const BAR: usize = 12;

/// Whether and how text is coloured.
#[derive(Debug, Clone, Copy)]
pub struct Paint(pub bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.trim().is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.into()
        }
    }

    fn heading(self, text: &str) -> String {
        self.with("1", text)
    }

    fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    /// The generator's bar is not one of the models'.
    fn bar(self, text: &str, is_model: bool) -> String {
        self.with(if is_model { "34" } else { "2" }, text)
    }

    fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    fn mixed(self, text: &str) -> String {
        self.with("33", text)
    }
}

/// The whole report, as lines.
pub fn render(report: &Report, paint: Paint) -> String {
    let mut lines = head(report, paint);
    for (mode, clients, idle) in report.loads() {
        let cells: Vec<&CellReport> = report.load(mode, clients).collect();
        lines.push(String::new());
        match mode {
            Mode::Idle => lines.extend(idle_table(&cells, clients, idle, paint)),
            _ => lines.extend(load_table(&cells, mode, clients, paint)),
        }
    }
    if report.cells.iter().any(CellReport::is_near_limit) {
        lines.push(paint.faint(
            "* within 10 % of the generator's own limit: the server may be faster than this",
        ));
    }
    lines.extend(registry::table(&report.registry, paint));
    lines.extend(sandbox::table(report.sandbox.as_ref(), paint));
    lines.extend(cost_table(&report.costs, paint));
    lines.extend(isolation_table(&report.isolation, paint));
    lines.extend(claims(&report.claims, paint));
    lines
        .iter()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

fn head(report: &Report, paint: Paint) -> Vec<String> {
    let mut lines = wrapped(&format!("Machine   {}", report.machine), 10);
    lines.extend(wrapped(
        &format!(
            "Measured  {}; {:.2} s a cell in {}, {:.0} s in all; median, min–max; latencies over all rounds; \
             CPU is the server's per request, PSS its memory at the end",
            report.service,
            report.duration,
            plural(report.rounds, "round"),
            report.took
        ),
        10,
    ));
    for warning in report.warnings() {
        let warning = wrapped(&format!("Warning   {warning}"), 10);
        lines.extend(warning.iter().map(|line| paint.bad(line)));
    }
    lines
}

fn largest(figures: impl Iterator<Item = f64>) -> f64 {
    figures.fold(0.0, f64::max).max(f64::MIN_POSITIVE)
}

/// The heading of a load, in words.
pub fn load_title(mode: Mode, clients: usize, idle: usize) -> String {
    let clients = plural(clients, "client");
    match mode {
        Mode::PerRequest => format!("{clients}, a connection per request"),
        Mode::Persistent => format!("{clients}, persistent connections"),
        Mode::Idle => format!("{} beside {clients}", plural(idle, "idle connection")),
    }
}

fn load_table(cells: &[&CellReport], mode: Mode, clients: usize, paint: Paint) -> Vec<String> {
    let rate = match mode {
        Mode::PerRequest => "conn/s",
        _ => "req/s",
    };
    let mut lines = vec![
        paint.heading(&load_title(mode, clients, 0)),
        paint.faint(&format!(
            "{:<9} {:<BAR$} {rate:>7} {:>13} {:>6} {:>6} {:>6} {:>7} {:>5}",
            "", "", "min–max", "p50", "p99", "p99.9", "CPU", "PSS"
        )),
    ];
    let most = largest(cells.iter().filter_map(|cell| Some(cell.rate()?.median)));
    lines.extend(cells.iter().map(|cell| load_row(cell, most, paint)));
    lines
}

fn load_row(cell: &CellReport, most: f64, paint: Paint) -> String {
    let name = &cell.model;
    let (Some(rate), Some(latency)) = (cell.rate(), cell.latency_us) else {
        return format!("{name:<9} {}", paint.mixed(&starved(cell)));
    };
    let is_model = name != "generator";
    let star = if cell.is_near_limit() { "*" } else { "" };
    format!(
        "{name:<9} {} {:>7} {:>13} {:>6} {:>6} {:>6} {:>7} {:>5}",
        paint.bar(&bar(rate.median / most, BAR), is_model),
        format!("{}{star}", count(rate.median)),
        ends(rate, count),
        micros(latency.p50),
        micros(latency.p99),
        micros(latency.p999),
        cell.cpu_us_per_request.map_or_else(String::new, micros),
        cell.memory_kib
            .map_or_else(String::new, |memory| kib(memory.median)),
    )
}

fn starved(cell: &CellReport) -> String {
    format!("starved: {}", plural(cell.starved, "client"))
}

fn ends(spread: Spread, format: fn(f64) -> String) -> String {
    format!("{}–{}", format(spread.min), format(spread.max))
}

fn idle_table(cells: &[&CellReport], clients: usize, idle: usize, paint: Paint) -> Vec<String> {
    let mut lines = vec![
        paint.heading(&load_title(Mode::Idle, clients, idle)),
        paint.faint(&format!(
            "{:<9} {:<BAR$} {:>9} {:>7} {:>9} {:>9} {:>8} {:>8}",
            "", "", "per idle", "served", "empty", "with idle", "req/s", "p99"
        )),
    ];
    let each = |cell: &CellReport| cell.idle_memory?.per_connection_kib;
    let most = largest(cells.iter().filter_map(|cell| each(cell)));
    for cell in cells {
        let Some(memory) = cell.idle_memory else {
            continue;
        };
        let busy = match (cell.rate(), cell.latency_us) {
            (Some(rate), Some(latency)) => {
                format!("{:>8} {:>8}", count(rate.median), micros(latency.p99))
            }
            _ => paint.mixed(&format!("{:>17}", starved(cell).replace(" clients", ""))),
        };
        lines.push(format!(
            "{:<9} {} {:>9} {:>7} {:>9} {:>9} {busy}",
            cell.model,
            paint.bar(&bar(each(cell).unwrap_or(0.0) / most, BAR), true),
            each(cell).map_or_else(String::new, kib),
            memory.served,
            kib(memory.before_kib),
            kib(memory.with_kib),
        ));
    }
    lines.push(paint.faint("memory: PSS without the pages of files, which the generator shares"));
    lines
}

fn cost_table(costs: &[Cost], paint: Paint) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        paint.heading("To create a flow of control and to wait for its end"),
        paint.faint(&format!(
            "{:<23} {:<BAR$} {:>7} {:>15} {:>9} {:>9}",
            "", "", "time", "min–max", "cycles", "textbook"
        )),
    ];
    let most = largest(costs.iter().map(|cost| cost.microseconds.median));
    lines.extend(costs.iter().map(|cost| {
        let time = cost.microseconds;
        format!(
            "{:<23} {} {:>7} {:>15} {:>9} {:>9}",
            cost.kind.describe(),
            paint.bar(&bar(time.median / most, BAR), true),
            micros(time.median),
            ends(time, micros),
            cost.cycles
                .map_or_else(String::new, |spread| cycles(spread.median)),
            cost.textbook_cycles
                .map_or_else(String::new, |figure| cycles(figure as f64)),
        )
    }));
    lines
}

fn isolation_table(isolation: &[Isolation], paint: Paint) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        paint.heading("When the handler of one of 16 connections crashes"),
    ];
    lines.extend(isolation.iter().map(|isolation| {
        let lost = isolation.others().saturating_sub(isolation.survivors);
        format!(
            "{:<9} {}{} {}",
            isolation.model,
            paint.good(&"●".repeat(isolation.survivors)),
            paint.bad(&"○".repeat(lost)),
            crash_in_words(isolation)
        )
    }));
    lines
}

/// What became of the others, in words.
pub fn crash_in_words(isolation: &Isolation) -> String {
    let others = isolation.others();
    if !isolation.crashed {
        return "the handler did not crash".into();
    }
    if isolation.lost_all() {
        return format!("loses all: 0 of {others} survive, nobody new is served");
    }
    let new = if isolation.new_served {
        "new clients are served"
    } else {
        "nobody new is served"
    };
    format!("{} of {others} survive, {new}", isolation.survivors)
}

fn claims(claims: &[Claim], paint: Paint) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        paint.heading("What the textbook says, and what was measured here"),
    ];
    for claim in claims {
        let verdict = format!("{:<14}", claim.verdict.describe());
        let verdict = match claim.verdict {
            Verdict::Holds => paint.good(&verdict),
            Verdict::DoesNotHold => paint.bad(&verdict),
            Verdict::Depends | Verdict::NotMeasured => paint.mixed(&verdict),
        };
        lines.push(format!("{verdict}{}", claim.statement));
        let indent = " ".repeat(14);
        let measured = wrapped(&format!("{indent}{}", claim.measured), 14);
        lines.extend(measured.iter().map(|line| paint.faint(line)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::sample::report;
    use crate::layout::COLUMNS;

    #[test]
    fn nothing_is_wider_than_80_columns() {
        for line in render(&report(), Paint(false)).lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }

    #[test]
    fn each_figure_is_there_and_who_starves_has_none() {
        let text = render(&report(), Paint(false));
        for part in [
            "16 clients, a connection per request",
            "process   ████████████",
            "iterative starved: 15 clients",
            "256 idle connections beside 16 clients",
            "p99.9",
            "208,000    20,000",
            "loses all: 0 of 15 survive",
            "does not hold",
            "peers of 1,000 files, 16 clients",
            "1.1×",
            "* within 10 %",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn colours_are_there_only_where_they_are_wanted() {
        let coloured = render(&report(), Paint(true));
        assert!(coloured.contains("\x1b[34m█"));
        let mut plain = coloured;
        for code in ["0", "1", "2", "31", "32", "33", "34"] {
            plain = plain.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(plain, render(&report(), Paint(false)));
    }
}
