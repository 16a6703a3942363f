//! Rates in bytes per second: counters are sampled every second, and compared with their present values when a status
//! is requested.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The sampling interval.
pub const EVERY: Duration = Duration::from_secs(1);
/// The number of samples kept: a rate is the average over the last five seconds.
const KEPT: usize = 5;
/// Over a shorter time a rate is meaningless.
const LEAST: Duration = Duration::from_millis(100);

/// The samples, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    looks: VecDeque<(Instant, Vec<u64>)>,
}

impl Rates {
    /// Takes a sample, if it is time; returns when the next is due.
    pub fn look(&mut self, now: Instant, counters: impl FnOnce() -> Vec<u64>) -> Duration {
        if let Some((last, _)) = self.looks.back() {
            let since = now.saturating_duration_since(*last);
            if since < EVERY {
                return EVERY - since;
            }
        }
        if self.looks.len() == KEPT {
            self.looks.pop_front();
        }
        self.looks.push_back((now, counters()));
        EVERY
    }

    /// The rate of the counter with this index, whose present value is `count`, per second; 0 while it is unknown.
    pub fn rate(&self, now: Instant, index: usize, count: u64) -> f64 {
        let long_ago = |(at, _): &&(Instant, Vec<u64>)| now.saturating_duration_since(*at) >= LEAST;
        let Some((at, counts)) = self.looks.front().filter(long_ago) else {
            return 0.0;
        };
        let before = counts.get(index).copied().unwrap_or(count);
        let grown = count.saturating_sub(before) as f64;
        (grown / now.saturating_duration_since(*at).as_secs_f64()).round()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let (start, mut rates) = (Instant::now(), Rates::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rates.rate(start, 0, 100), 0.0, "nothing is known");
        assert_eq!(rates.look(start, || vec![100, 7]), EVERY);
        assert_eq!(rates.rate(start, 0, 200), 0.0, "it is too early");
        assert_eq!(rates.rate(at(2), 0, 300), 100.0);
        assert_eq!(rates.rate(at(2), 1, 7), 0.0);
        assert_eq!(rates.rate(at(2), 9, 1000), 0.0, "it came later");
        for second in 1..10 {
            let again = start + Duration::from_millis(second * 1000 - 400);
            assert_eq!(
                rates.look(again, || panic!("too early")),
                Duration::from_millis(400)
            );
            rates.look(at(second), || vec![100 + 10 * second, 7]);
        }
        assert_eq!(rates.rate(at(10), 0, 200), 10.0);
        assert_eq!(rates.rate(at(10), 0, 50), 0.0, "a counter that began anew");
    }
}
