//! From the samples of the rounds to the figures of a cell.

use std::collections::BTreeMap;

use serde::Serialize;

use super::load::Sample;

/// The middle and the ends of a figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Default)]
pub struct Spread {
    /// The median: of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The spread of these figures; none where there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        Some(Self {
            min: *sorted.first()?,
            max: *sorted.last()?,
            median: (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
        })
    }
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the requests were answered within this time.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// All.
    pub max: f64,
}

impl Latency {
    /// The percentiles over all rounds; none where nothing was answered.
    pub fn of<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Option<Self> {
        let mut merged: BTreeMap<u64, u64> = BTreeMap::new();
        for (value, count) in samples.into_iter().flat_map(|sample| &sample.latencies) {
            *merged.entry(*value).or_default() += count;
        }
        let total: u64 = merged.values().sum();
        let (max, _) = merged.last_key_value()?;
        let at = |quantile: f64| {
            let rank = ((total as f64 * quantile).ceil() as u64).max(1);
            let mut seen = 0;
            merged
                .iter()
                .find(|(_, count)| {
                    seen += **count;
                    seen >= rank
                })
                .map_or(*max, |(value, _)| *value) as f64
                / 1000.0
        };
        Some(Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: *max as f64 / 1000.0,
        })
    }
}

/// How many clients never got an answer: in the middle one of the rounds, so that a single hiccup is no verdict.
pub fn starved(samples: &[Sample]) -> usize {
    let mut counts: Vec<usize> = samples.iter().map(|sample| sample.starved).collect();
    counts.sort_unstable();
    counts.get(counts.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(latencies: &[(u64, u64)]) -> Sample {
        Sample {
            latencies: latencies.iter().copied().collect(),
            ..Sample::default()
        }
    }

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middles() {
        let spread = Spread::of([3.0, 1.0, 2.0]).expect("figures");
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.0, 3.0));
        assert_eq!(
            Spread::of([4.0, 1.0, 2.0, 3.0]).map(|s| s.median),
            Some(2.5)
        );
        assert_eq!(Spread::of([7.0]).map(|s| s.median), Some(7.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn percentiles_are_those_of_all_rounds_together() {
        let rounds = [sample(&[(1000, 990)]), sample(&[(2000, 9), (50_000, 1)])];
        let latency = Latency::of(&rounds).expect("latencies");
        assert_eq!((latency.p50, latency.p99), (1.0, 1.0));
        assert_eq!((latency.p999, latency.max), (2.0, 50.0));
        assert_eq!(Latency::of(&[]), None);
    }

    #[test]
    fn one_round_of_several_does_not_make_a_client_starve() {
        let with = |starved| Sample {
            starved,
            ..Sample::default()
        };
        assert_eq!(starved(&[with(0), with(3), with(0)]), 0);
        assert_eq!(starved(&[with(240), with(239), with(241)]), 240);
        assert_eq!(starved(&[with(15)]), 15);
    }
}
