//! The latencies of each model under each number of clients: a line from the median to the 99.9th percentile.

use super::{NAMES, ROW, WIDTH, class};
use crate::compare::cell::CellReport;
use crate::compare::plan::Mode;
use crate::compare::report::Report;
use crate::compare::svg::{Anchor, Svg, decades};
use crate::compare::units::{micros, plural};

/// Above the first row and below the last one.
const TOP: f64 = 8.0;
const AXIS: f64 = 32.0;

/// The plot; nothing where there is nothing to plot.
pub fn latency(report: &Report, mode: Mode) -> Option<String> {
    let groups: Vec<(usize, Vec<&CellReport>)> = report
        .clients
        .iter()
        .map(|clients| (*clients, report.load(mode, *clients).collect::<Vec<_>>()))
        .filter(|(_, cells)| !cells.is_empty())
        .collect();
    let scale = Scale::of(groups.iter().flat_map(|(_, cells)| cells.iter().copied()))?;
    let rows: usize = groups.iter().map(|(_, cells)| cells.len() + 1).sum();
    let bottom = TOP + rows as f64 * ROW;
    let title = match mode {
        Mode::PerRequest => {
            "Latency of a request with its connection, from the median to the 99.9th percentile"
        }
        _ => "Latency of a request on an open connection, from the median to the 99.9th percentile",
    };
    let mut svg = Svg::new(WIDTH, bottom + AXIS, title);
    scale.draw(&mut svg, bottom);
    let mut y = TOP + ROW / 2.0;
    for (clients, cells) in groups {
        let text = plural(clients, "client");
        svg.text((NAMES, y), Anchor::Start, "group", &text);
        y += ROW;
        for cell in cells {
            row(&mut svg, cell, &scale, y);
            y += ROW;
        }
    }
    Some(svg.finish(match mode {
        Mode::PerRequest => "plot-latency-connection",
        _ => "plot-latency-request",
    }))
}

/// A logarithmic axis of time.
struct Scale {
    /// The powers of ten on it, in microseconds.
    decades: Vec<f64>,
    low: f64,
    high: f64,
}

impl Scale {
    fn of<'a>(cells: impl Iterator<Item = &'a CellReport>) -> Option<Self> {
        let (least, most) = cells
            .filter_map(|cell| cell.latency_us)
            .map(|latency| (latency.p50, latency.p999))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        let decades = decades(least, most);
        Some(Self {
            low: decades.first()?.log10(),
            high: decades.last()?.log10(),
            decades,
        })
    }

    fn x(&self, time: f64) -> f64 {
        let share = (time.max(1e-9).log10() - self.low) / (self.high - self.low);
        NAMES + share * (WIDTH - 28.0 - NAMES)
    }

    fn draw(&self, svg: &mut Svg, bottom: f64) {
        for decade in &self.decades {
            let x = self.x(*decade);
            svg.line((x, TOP), (x, bottom), "grid");
            let text = round_time(*decade);
            svg.text((x, bottom + 14.0), Anchor::Middle, "tick", &text);
        }
    }
}

fn row(svg: &mut Svg, cell: &CellReport, scale: &Scale, y: f64) {
    let class = class(&cell.model);
    let name = format!("name {class}");
    svg.text((NAMES - 8.0, y), Anchor::End, &name, &cell.model);
    let clients = |n| plural(n, "client");
    let Some(latency) = cell.latency_us else {
        let text = format!("starved: {}", clients(cell.starved));
        svg.text((NAMES + 8.0, y), Anchor::Start, "starved", &text);
        return;
    };
    let ends = (scale.x(latency.p50), scale.x(latency.p999));
    svg.line((ends.0, y), (ends.1, y), &format!("range {class}"));
    for (radius, style, percentile, time) in [
        (3.0, "hollow", "p99.9", latency.p999),
        (3.5, "hollow", "p99", latency.p99),
        (4.5, "dot", "p50", latency.p50),
    ] {
        let who = format!("{}, {}", cell.model, clients(cell.clients));
        let tip = format!("{who}: {percentile} {}", micros(time));
        svg.dot(
            (scale.x(time), y),
            radius,
            &format!("{style} {class}"),
            &tip,
        );
    }
}

/// A power of ten of microseconds.
fn round_time(time: f64) -> String {
    match time {
        t if t < 1000.0 => format!("{t:.0} µs"),
        t if t < 1e6 => format!("{:.0} ms", t / 1e3),
        t => format!("{:.0} s", t / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::sample::report;

    #[test]
    fn each_row_has_three_dots_or_says_who_starves() {
        let plot = latency(&report(), Mode::Persistent).expect("a plot");
        assert_eq!(plot.matches("<circle").count(), 3);
        assert!(plot.contains("starved: 15 clients"), "{plot}");
    }

    #[test]
    fn powers_of_ten_are_round() {
        assert_eq!(
            [10.0, 1e3, 1e5, 1e6].map(round_time),
            ["10 µs", "1 ms", "100 ms", "1 s"]
        );
    }
}
