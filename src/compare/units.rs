//! Figures as people read them: short, with a unit, three digits at most where more would be noise.

use crate::text::grouped;

/// A count or a rate: `950`, `12.3k`, `1.24M`.
pub fn count(figure: f64) -> String {
    scaled(figure, &[(1e9, "G"), (1e6, "M"), (1e3, "k")])
}

/// A time that is given in microseconds: `850ns`, `82µs`, `1.24ms`, `3.1s`.
pub fn micros(figure: f64) -> String {
    if figure < 0.9995 {
        format!("{:.0}ns", figure * 1000.0)
    } else if figure < 999.5 {
        format!("{}µs", digits(figure))
    } else if figure < 999_500.0 {
        format!("{}ms", digits(figure / 1e3))
    } else {
        format!("{}s", digits(figure / 1e6))
    }
}

/// Memory that is given in KiB: `812K`, `3.42M`.
pub fn kib(figure: f64) -> String {
    if figure < 999.5 {
        format!("{}K", digits(figure))
    } else if figure < 999.5 * 1024.0 {
        format!("{}M", digits(figure / 1024.0))
    } else {
        format!("{}G", digits(figure / 1024.0 / 1024.0))
    }
}

/// Cycles, as the textbook writes them: `208,000`, to three digits.
pub fn cycles(figure: f64) -> String {
    let magnitude = 10_f64.powi((figure.max(1.0).log10().floor() as i32 - 2).max(0));
    let rounded = ((figure / magnitude).round() * magnitude) as u64;
    grouped(rounded)
}

/// A multiple: `2.4×`.
pub fn ratio(figure: f64) -> String {
    format!("{}×", digits_short(figure))
}

/// A share: `42 %`.
pub fn per_cent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// The ends of several figures, once where they read the same: `1.9×–2.4×`.
pub fn range(figures: &[f64], format: fn(f64) -> String) -> String {
    let min = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let max = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (min, max) = (format(min), format(max));
    if min == max {
        min
    } else {
        format!("{min}–{max}")
    }
}

/// A number of things: `1 client`, `3 clients`.
pub fn plural(n: usize, thing: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {thing}{plural}")
}

fn scaled(figure: f64, scales: &[(f64, &str)]) -> String {
    for (scale, unit) in scales {
        if figure >= 0.9995 * scale {
            return format!("{}{unit}", digits(figure / scale));
        }
    }
    format!("{figure:.0}")
}

/// Three digits.
fn digits(figure: f64) -> String {
    match figure {
        f if f < 9.995 => format!("{f:.2}"),
        f if f < 99.95 => format!("{f:.1}"),
        f => format!("{f:.0}"),
    }
}

/// Two digits.
fn digits_short(figure: f64) -> String {
    match figure {
        f if f < 0.995 => format!("{f:.2}"),
        f if f < 9.95 => format!("{f:.1}"),
        f => format!("{f:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let counts = [0.0, 7.4, 950.0, 999.6, 12_345.0, 123_456.0, 1_234_567.0].map(count);
        assert_eq!(counts, ["0", "7", "950", "1.00k", "12.3k", "123k", "1.23M"]);
        let times = [0.85, 1.0, 82.34, 999.9, 1234.0, 3_100_000.0].map(micros);
        assert_eq!(
            times,
            ["850ns", "1.00µs", "82.3µs", "1.00ms", "1.23ms", "3.10s"]
        );
        assert_eq!([12.0, 812.0, 3500.0].map(kib), ["12.0K", "812K", "3.42M"]);
        assert_eq!(
            [950.0, 20_000.0, 208_456.0].map(cycles),
            ["950", "20,000", "208,000"]
        );
        assert_eq!([0.5, 2.44, 17.3].map(ratio), ["0.50×", "2.4×", "17×"]);
        assert_eq!(plural(1, "client"), "1 client");
        assert_eq!(plural(0, "client"), "0 clients");
    }

    #[test]
    fn a_range_has_two_ends_unless_they_read_the_same() {
        assert_eq!(range(&[2.0, 1.0, 1.5], ratio), "1.0×–2.0×");
        assert_eq!(range(&[1.0, 1.01], ratio), "1.0×");
    }
}
