//! How fast something goes now.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is older has no part in the rate.
const WINDOW: Duration = Duration::from_secs(10);
/// Before that a rate would be a guess.
const SHORTEST: Duration = Duration::from_millis(500);

/// The rate of a counter over the last seconds.
#[derive(Debug, Default)]
pub struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Takes note of the counter.
    pub fn add(&mut self, now: Instant, count: u64) {
        self.samples.push_back((now, count));
        // One sample of before the window stays: it begins there.
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| now - *at >= WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// Per second; nothing where it is not known yet.
    pub fn get(&self) -> Option<u64> {
        let (begin, before) = self.samples.front()?;
        let (end, after) = self.samples.back()?;
        let time = *end - *begin;
        let moved = after.saturating_sub(*before);
        (time >= SHORTEST).then(|| (moved as f64 / time.as_secs_f64()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_falls_to_nothing() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
        // What was counted before is not counted again.
        rate.add(at(0), 5000);
        assert_eq!(rate.get(), None);
        for tenth in 1..=200 {
            rate.add(at(tenth), 5000 + 100 * tenth);
        }
        assert_eq!(rate.get(), Some(1000));
        for tenth in 201..=310 {
            rate.add(at(tenth), 25_000);
        }
        assert_eq!(rate.get(), Some(0));
        assert!(rate.samples.len() < 110, "no more is kept than is needed");
    }
}
