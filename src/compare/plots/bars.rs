//! Plots of bars: memory per connection, creation cost.

use super::{NAMES, ROW, WIDTH, class};
use crate::compare::cost::Kind;
use crate::compare::report::Report;
use crate::compare::svg::{Anchor, Svg};
use crate::compare::units::{cycles, kib, micros};

/// Room for the figures beside the bars.
const FIGURES: f64 = 190.0;

/// What an idle connection adds to the server's memory.
pub fn memory(report: &Report) -> Option<String> {
    let rows: Vec<Row> = report
        .cells
        .iter()
        .filter_map(|cell| {
            let memory = cell.idle_memory?;
            let each = memory.per_connection_kib;
            Some(Row {
                name: cell.model.clone(),
                class: class(&cell.model),
                size: each.unwrap_or(0.0),
                figure: match each {
                    Some(each) if memory.served < cell.idle => {
                        format!("{} ({} served)", kib(each), memory.served)
                    }
                    Some(each) => kib(each),
                    None => "nobody was served".into(),
                },
                mark: None,
            })
        })
        .collect();
    let most = rows.iter().map(|row| row.size).fold(0.0, f64::max);
    (!rows.is_empty()).then(|| {
        bars(&rows, most, NAMES, "Memory per idle connection, in KiB").finish("plot-memory")
    })
}

/// What it costs to create a flow of control: in cycles, where there are any, with the textbook's figure as a mark.
pub fn creation(report: &Report) -> Option<String> {
    let rows: Vec<Row> = report
        .costs
        .iter()
        .map(|cost| {
            let time = micros(cost.microseconds.median);
            Row {
                name: cost.kind.describe().into(),
                class: class(match cost.kind {
                    Kind::Thread => "thread",
                    _ => "process",
                }),
                size: cost
                    .cycles
                    .map_or(cost.microseconds.median, |spread| spread.median),
                figure: match cost.cycles {
                    Some(spread) => format!("{time}, {} cycles", cycles(spread.median)),
                    None => time,
                },
                // The textbook counts cycles: there is nothing to mark on an axis of microseconds.
                mark: cost
                    .cycles
                    .and(cost.textbook_cycles)
                    .map(|figure| figure as f64),
            }
        })
        .collect();
    let most = rows.iter().map(|row| row.size).fold(0.0, f64::max);
    let title = "Cost of a flow of control, beside the textbook's figure";
    (!rows.is_empty()).then(|| bars(&rows, most, 170.0, title).finish("plot-creation"))
}

/// A bar of a bar plot.
struct Row {
    name: String,
    class: String,
    size: f64,
    figure: String,
    /// A figure to compare with.
    mark: Option<f64>,
}

fn bars(rows: &[Row], most: f64, left: f64, title: &str) -> Svg {
    let height = rows.len() as f64 * (ROW + 6.0) + 12.0;
    let mut svg = Svg::new(WIDTH, height, title);
    let x = |size: f64| left + size / most.max(f64::MIN_POSITIVE) * (WIDTH - FIGURES - left);
    svg.line((left, 4.0), (left, height - 4.0), "axis");
    for (index, row) in rows.iter().enumerate() {
        let y = 6.0 + index as f64 * (ROW + 6.0) + ROW / 2.0;
        svg.text(
            (left - 8.0, y),
            Anchor::End,
            &format!("name {}", row.class),
            &row.name,
        );
        let tip = format!("{}: {}", row.name, row.figure);
        let size = (x(row.size) - left, ROW - 4.0);
        svg.bar(
            (left, y - ROW / 2.0 + 2.0),
            size,
            &format!("bar {}", row.class),
            &tip,
        );
        svg.text((x(row.size) + 8.0, y), Anchor::Start, "figure", &row.figure);
        if let Some(mark) = row.mark {
            svg.line(
                (x(mark), y - ROW / 2.0 - 1.0),
                (x(mark), y + ROW / 2.0 + 1.0),
                "mark",
            );
        }
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::sample::report;

    #[test]
    fn the_textbook_is_a_mark_on_the_bar_of_creation() {
        let plot = creation(&report()).expect("a plot");
        assert_eq!(plot.matches("class=\"mark\"").count(), 1);
        assert_eq!(plot.matches("<rect").count(), 4);
    }

    #[test]
    fn each_model_has_a_bar_of_memory() {
        let plot = memory(&report()).expect("a plot");
        assert_eq!(plot.matches("<rect").count(), 2);
        assert!(plot.contains(">240K</text>"), "{plot}");
    }
}
