//! The rate of each model over the number of clients.

use super::{WIDTH, class};
use crate::compare::plan::Mode;
use crate::compare::report::Report;
use crate::compare::stats::Spread;
use crate::compare::svg::{Anchor, Svg, apart, ticks};
use crate::compare::units::{count, plural};

const HEIGHT: f64 = 340.0;
/// The edges of the axes; the names stand to the right of them.
const LEFT: f64 = 56.0;
const RIGHT: f64 = WIDTH - 140.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = HEIGHT - 44.0;
/// Between two names, and between the points of two models for the same number of clients.
const GAP: f64 = 15.0;
const ASIDE: f64 = 4.0;

/// The plot; nothing where there is nothing to plot.
pub fn throughput(report: &Report, mode: Mode) -> Option<String> {
    let series = series(report, mode);
    let rates = series.iter().flat_map(|series| &series.points);
    let most = rates.map(|(_, rate)| rate.max).reduce(f64::max)?;
    let title = match mode {
        Mode::PerRequest => "Connections per second over the number of clients",
        _ => "Requests per second on persistent connections over the number of clients",
    };
    let ticks = ticks(most, 5);
    let axes = Axes {
        clients: &report.clients,
        places: positions(&report.clients, LEFT + 28.0, RIGHT - 20.0),
        top: ticks.last().copied().unwrap_or(most),
    };
    let mut svg = Svg::new(WIDTH, HEIGHT, title);
    axes.draw(&mut svg, &ticks);
    for series in &series {
        series.draw(&mut svg, &axes);
    }
    names(&mut svg, &axes, &series);
    Some(svg.finish(match mode {
        Mode::PerRequest => "plot-connections",
        _ => "plot-requests",
    }))
}

/// From figures to positions.
struct Axes<'a> {
    clients: &'a [usize],
    places: Vec<f64>,
    /// The rate at the top.
    top: f64,
}

impl Axes<'_> {
    fn x(&self, clients: usize) -> f64 {
        let at = self.clients.iter().position(|n| *n == clients);
        at.map_or(LEFT, |at| self.places[at])
    }

    fn y(&self, rate: f64) -> f64 {
        BOTTOM - rate / self.top * (BOTTOM - TOP)
    }

    fn draw(&self, svg: &mut Svg, ticks: &[f64]) {
        for tick in ticks {
            let y = self.y(*tick);
            svg.line((LEFT, y), (RIGHT, y), "grid");
            svg.text((LEFT - 8.0, y), Anchor::End, "tick", &count(*tick));
        }
        for (clients, x) in self.clients.iter().zip(&self.places) {
            let text = clients.to_string();
            svg.text((*x, BOTTOM + 16.0), Anchor::Middle, "tick", &text);
        }
        let middle = ((LEFT + RIGHT) / 2.0, BOTTOM + 34.0);
        svg.text(middle, Anchor::Middle, "label", "clients at once");
    }
}

/// A model's line.
struct Series<'a> {
    model: &'a str,
    class: String,
    /// How far it is moved aside, so that the spreads of several models do not hide each other.
    aside: f64,
    /// Its rate by the number of clients, where none starved.
    points: Vec<(usize, Spread)>,
}

fn series(report: &Report, mode: Mode) -> Vec<Series<'_>> {
    let models = report.models.iter().map(String::as_str);
    std::iter::once("generator")
        .chain(models)
        .enumerate()
        .map(|(index, model)| Series {
            model,
            class: class(model),
            aside: (index as f64 - report.models.len() as f64 / 2.0) * ASIDE,
            points: report
                .cells
                .iter()
                .filter(|cell| cell.mode == mode && cell.model == model)
                .filter_map(|cell| Some((cell.clients, cell.rate()?)))
                .collect(),
        })
        .collect()
}

impl Series<'_> {
    fn draw(&self, svg: &mut Svg, axes: &Axes<'_>) {
        let class = &self.class;
        let place = |point: &(usize, Spread)| self.place(point, axes);
        let line: Vec<(f64, f64)> = self.points.iter().map(place).collect();
        svg.path(&line, &format!("series {class}"));
        for point in &self.points {
            let ((clients, rate), (x, y)) = (point, place(point));
            let spread = (axes.y(rate.min), axes.y(rate.max));
            svg.line((x, spread.0), (x, spread.1), &format!("spread {class}"));
            let tip = format!(
                "{}, {}: {} a second ({}–{})",
                self.model,
                plural(*clients, "client"),
                count(rate.median),
                count(rate.min),
                count(rate.max)
            );
            svg.dot((x, y), 4.0, &format!("dot {class}"), &tip);
        }
    }

    /// Where the line ends, if it reaches the largest number of clients.
    fn end(&self, axes: &Axes<'_>) -> Option<(f64, f64)> {
        let last = self.points.last()?;
        (Some(&last.0) == axes.clients.last()).then(|| self.place(last, axes))
    }

    fn place(&self, (clients, rate): &(usize, Spread), axes: &Axes<'_>) -> (f64, f64) {
        (axes.x(*clients) + self.aside, axes.y(rate.median))
    }
}

/// The names beside the ends of the lines; at the bottom those of models under which clients starve before that.
fn names(svg: &mut Svg, axes: &Axes<'_>, series: &[Series<'_>]) {
    let wanted: Vec<f64> = series
        .iter()
        .map(|series| series.end(axes).map_or(BOTTOM, |(_, y)| y))
        .collect();
    let places = apart(&wanted, GAP);
    // A crowd at the bottom is pushed up, not out of the plot.
    let lowest = places.iter().copied().fold(BOTTOM, f64::max);
    for (series, place) in series.iter().zip(places) {
        let y = place - (lowest - BOTTOM) * ((place - TOP) / (lowest - TOP));
        let text = match series.end(axes) {
            Some((x, end)) => {
                let lead = format!("lead {}", series.class);
                svg.line((x + 7.0, end), (RIGHT + 4.0, y), &lead);
                series.model.to_owned()
            }
            None => format!("{}: starved", series.model),
        };
        let name = format!("name {}", series.class);
        svg.text((RIGHT + 8.0, y), Anchor::Start, &name, &text);
    }
}

/// Places on an axis by the figure's logarithm; a single one stands in the middle.
fn positions(figures: &[usize], from: f64, to: f64) -> Vec<f64> {
    let logarithms: Vec<f64> = figures.iter().map(|n| (*n as f64).max(1.0).ln()).collect();
    let least = logarithms.iter().copied().fold(f64::INFINITY, f64::min);
    let most = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let place = |at: f64| {
        if most > least {
            from + (at - least) / (most - least) * (to - from)
        } else {
            (from + to) / 2.0
        }
    };
    logarithms.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::sample::report;

    #[test]
    fn each_model_has_a_line_and_a_name_and_who_starves_is_said_to() {
        let plot = throughput(&report(), Mode::PerRequest).expect("a plot");
        assert_eq!(plot.matches("<polyline").count(), 3);
        assert!(plot.contains(">process</text>") && plot.contains(">iterative</text>"));
        let plot = throughput(&report(), Mode::Persistent).expect("a plot");
        assert!(plot.contains(">iterative: starved</text>"), "{plot}");
    }

    #[test]
    fn positions_follow_the_logarithm() {
        assert_eq!(positions(&[1, 16, 256], 0.0, 100.0), [0.0, 50.0, 100.0]);
        assert_eq!(positions(&[7], 0.0, 100.0), [50.0]);
    }
}
