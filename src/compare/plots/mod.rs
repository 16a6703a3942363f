//! The plots of the page: throughput over clients, latency, memory per connection, creation cost.

mod bars;
mod latency;
mod throughput;

pub use bars::{creation, memory};
pub use latency::latency;
pub use throughput::throughput;

use crate::server::Model;

/// The width of every plot, in its own units.
const WIDTH: f64 = 640.0;
/// Room for the names of rows.
const NAMES: f64 = 92.0;
/// The height of a row.
const ROW: f64 = 22.0;

/// The style class of a model, which has the same colour in every comparison.
pub fn class(model: &str) -> String {
    let place = Model::ALL.iter().position(|known| {
        // The second of two equal models has a number behind its name.
        model.split(' ').next() == Some(&known.to_string())
    });
    place.map_or_else(|| "generator".into(), |place| format!("m{place}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::plan::Mode;
    use crate::compare::sample::report;

    #[test]
    fn a_model_has_its_colour_whatever_it_is_compared_with() {
        assert_eq!(class("iterative"), "m0");
        assert_eq!(class("process"), class("process 2"));
        assert_ne!(class("thread"), class("prethread"));
        assert_eq!(class("generator"), "generator");
    }

    #[test]
    fn nothing_is_plotted_where_nothing_was_measured() {
        let mut report = report();
        report.cells.clear();
        assert!(throughput(&report, Mode::PerRequest).is_none());
        assert!(latency(&report, Mode::Persistent).is_none());
        assert!(memory(&report).is_none());
    }
}
