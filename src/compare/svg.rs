//! The few shapes of which the plots are made. Colours come from the page's style sheet, so that they follow its
//! light and dark dress; positions are in the plot's own units, which the browser scales.

use std::fmt::Write;

use crate::text::escape_markup;

/// A plot under construction.
#[derive(Debug)]
pub struct Svg {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

/// Where a text stands with respect to its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// It is centred there.
    Middle,
    /// It ends there.
    End,
}

impl Svg {
    /// An empty plot; the title is what a screen reader says.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        Self {
            width,
            height,
            title: title.into(),
            body: String::new(),
        }
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.push(format_args!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        ));
    }

    /// A line through several points.
    pub fn path(&mut self, points: &[(f64, f64)], class: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        self.push(format_args!(
            r#"<polyline class="{class}" points="{}"/>"#,
            points.join(" ")
        ));
    }

    /// A point, with a text that is shown where it is pointed at.
    pub fn dot(&mut self, (x, y): (f64, f64), radius: f64, class: &str, tip: &str) {
        self.push(format_args!(
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{radius}"><title>{}</title></circle>"#,
            escape_markup(tip)
        ));
    }

    /// A bar from its left end, with a text as of [`Svg::dot`].
    pub fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str, tip: &str) {
        self.push(format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{:.1}" height="{height:.1}" rx="2"><title>{}</title></rect>"#,
            width.max(1.0),
            escape_markup(tip)
        ));
    }

    /// A text, centred vertically.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" dy="0.35em" text-anchor="{anchor}">{}</text>"#,
            escape_markup(text)
        ));
    }

    /// The element, to be put into a page.
    pub fn finish(self, id: &str) -> String {
        format!(
            "<svg class=\"plot\" id=\"{id}\" role=\"img\" viewBox=\"0 0 {:.0} {:.0}\">\n<title>{}</title>\n{}</svg>\n",
            self.width,
            self.height,
            escape_markup(&self.title),
            self.body
        )
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.body, "{element}");
    }
}

/// Round figures from 0 that reach `most` in about `steps` steps.
pub fn ticks(most: f64, steps: usize) -> Vec<f64> {
    if most <= 0.0 || !most.is_finite() {
        return vec![0.0, 1.0];
    }
    let rough = most / steps.max(1) as f64;
    let magnitude = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * magnitude)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(magnitude * 10.0);
    let count = (most / step * 0.999).ceil() as usize;
    (0..=count).map(|i| i as f64 * step).collect()
}

/// The powers of ten that enclose these figures.
pub fn decades(least: f64, most: f64) -> Vec<f64> {
    let first = least.max(1e-9).log10().floor() as i32;
    let last = (most.max(least).max(1e-9).log10().ceil() as i32).max(first + 1);
    (first..=last)
        .map(|exponent| 10_f64.powi(exponent))
        .collect()
}

/// Moves positions apart that are nearer than `gap`, changing their order nowhere.
pub fn apart(positions: &[f64], gap: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..positions.len()).collect();
    order.sort_by(|a, b| positions[*a].total_cmp(&positions[*b]));
    let mut moved = positions.to_vec();
    // Pushing down and then back up spreads a cluster around its middle well enough after some turns.
    for _ in 0..50 {
        for pair in order.windows(2) {
            let (above, below) = (pair[0], pair[1]);
            let missing = gap - (moved[below] - moved[above]);
            if missing > 0.0 {
                moved[above] -= missing / 2.0;
                moved[below] += missing / 2.0;
            }
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_largest_figure() {
        assert_eq!(
            ticks(24_567.0, 5),
            [0.0, 5000.0, 10_000.0, 15_000.0, 20_000.0, 25_000.0]
        );
        assert_eq!(ticks(1.0, 4), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(ticks(0.0, 4), [0.0, 1.0]);
        for most in [0.03, 7.0, 99.0, 101.0, 3e6] {
            let ticks = ticks(most, 5);
            assert!(
                ticks.last().is_some_and(|last| *last >= most),
                "{most}: {ticks:?}"
            );
            assert!(ticks.len() <= 8, "{most}: {ticks:?}");
        }
    }

    #[test]
    fn decades_enclose_the_figures() {
        assert_eq!(decades(30.0, 4000.0), [10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(decades(10.0, 10.0), [10.0, 100.0]);
    }

    #[test]
    fn labels_do_not_overlap_and_keep_their_order() {
        let moved = apart(&[10.0, 11.0, 50.0, 12.0], 14.0);
        assert!(moved[0] + 13.9 < moved[1] && moved[1] + 13.9 < moved[3] && moved[3] < moved[2]);
        assert_eq!(apart(&[1.0, 100.0], 14.0), [1.0, 100.0]);
    }

    #[test]
    fn an_element_has_a_title_and_escapes_its_texts() {
        let mut svg = Svg::new(100.0, 50.0, "a < b");
        svg.text((1.0, 2.0), Anchor::End, "label", "\"x\" & <y>");
        svg.dot((3.0, 4.0), 2.5, "m0", "tip");
        let text = svg.finish("plot");
        assert!(
            text.starts_with(
                "<svg class=\"plot\" id=\"plot\" role=\"img\" viewBox=\"0 0 100 50\">"
            )
        );
        assert!(text.contains("<title>a &lt; b</title>"));
        assert!(text.contains("&quot;x&quot; &amp; &lt;y&gt;</text>"));
        assert!(text.contains(
            r#"<circle class="m0" cx="3.0" cy="4.0" r="2.5"><title>tip</title></circle>"#
        ));
    }
}
