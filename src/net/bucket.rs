//! A limit of bytes per second that many processes keep together.
//!
//! The state is a single number in shared memory: the moment at which everything that was reserved so far will have
//! passed. Whoever wants to move bytes adds their time to it and waits for the moment that it was before, so all take
//! turns in the order in which they asked. There is no lock: a process that dies takes no more with it than the few
//! bytes that it had reserved.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sys::shared::Shared;

/// How much of the time that passed unused may be made up for. A process that wakes late must not lose its share.
const CREDIT: Duration = Duration::from_millis(100);
/// What is reserved at once is worth about a fiftieth of a second, within these bounds.
const PER_SECOND: u64 = 50;
const LEAST: u64 = 512;
const MOST: u64 = 1 << 20;

/// A limit, shared with all children that are forked later.
#[derive(Debug)]
pub struct Bucket {
    /// Bytes per second.
    rate: u64,
    /// The clock is CLOCK_MONOTONIC, the same in all processes; it is counted from here.
    epoch: Instant,
    /// Nanoseconds after the epoch.
    next: Shared<AtomicU64>,
}

impl Bucket {
    /// A limit of `rate` bytes per second, at least 1.
    ///
    /// # Errors
    /// Where the memory cannot be had.
    pub fn new(rate: u64) -> io::Result<Self> {
        Ok(Self {
            rate: rate.max(1),
            // Nothing is before the epoch, so that the credit needs no sign.
            epoch: Instant::now(),
            next: Shared::new(1)?,
        })
    }

    /// Bytes per second.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// How much to reserve at once of so many bytes.
    pub fn portion(&self, wanted: u64) -> u64 {
        wanted.min((self.rate / PER_SECOND).clamp(LEAST, MOST))
    }

    /// Reserves bytes, and says when they may be moved.
    pub fn reserve(&self, bytes: u64) -> Instant {
        let now = self.epoch.elapsed();
        self.epoch + self.reserve_at(now, bytes)
    }

    /// The same with the time as an argument, counted from the epoch.
    fn reserve_at(&self, now: Duration, bytes: u64) -> Duration {
        let nanoseconds = |duration: Duration| duration.as_nanos() as u64;
        let earliest = nanoseconds(now.saturating_sub(CREDIT));
        let time = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let time = u64::try_from(time).unwrap_or(u64::MAX);
        let Some(next) = self.next.first() else {
            return now;
        };
        let add = |next: u64| Some(next.max(earliest).saturating_add(time));
        // The closure never declines, so that both results are the former value.
        let before = match next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(before) | Err(before) => before,
        };
        Duration::from_nanos(before.max(earliest))
    }
}

/// The part of a limit that one process has reserved, for one direction of one connection.
#[derive(Debug, Default)]
pub struct Allowance {
    bytes: u64,
    from: Option<Instant>,
}

impl Allowance {
    /// How many of `wanted` bytes may be moved now; otherwise when some may.
    ///
    /// # Errors
    /// With that moment.
    pub fn take(&mut self, bucket: &Bucket, wanted: u64) -> Result<u64, Instant> {
        if self.bytes == 0 {
            self.bytes = bucket.portion(wanted.max(1));
            self.from = Some(bucket.reserve(self.bytes));
        }
        match self.from {
            Some(from) if from > Instant::now() => Err(from),
            _ => Ok(self.bytes.min(wanted)),
        }
    }

    /// So many were moved.
    pub fn moved(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_follow_one_another_at_the_rate() {
        let bucket = Bucket::new(1000).expect("memory");
        let start = Duration::from_secs(5);
        let at: Vec<Duration> = (0..4).map(|_| bucket.reserve_at(start, 500)).collect();
        let half = Duration::from_millis(500);
        let first = start - CREDIT;
        assert_eq!(
            at,
            [first, first + half, first + half * 2, first + half * 3]
        );
    }

    #[test]
    fn time_that_passed_unused_is_lost_but_for_a_little() {
        let bucket = Bucket::new(1000).expect("memory");
        bucket.reserve_at(Duration::from_secs(1), 100);
        let later = Duration::from_secs(100);
        assert_eq!(bucket.reserve_at(later, 100), later - CREDIT);
    }

    #[test]
    fn absurd_rates_and_sizes_do_no_harm() {
        let slow = Bucket::new(0).expect("memory");
        slow.reserve_at(Duration::ZERO, u64::MAX);
        assert!(slow.reserve_at(Duration::ZERO, u64::MAX) > Duration::from_secs(1000));
        let fast = Bucket::new(u64::MAX).expect("memory");
        assert_eq!(fast.portion(u64::MAX), MOST);
        assert_eq!(fast.portion(3), 3);
    }

    #[test]
    fn an_allowance_is_used_up_before_more_is_reserved() {
        let bucket = Bucket::new(LEAST * PER_SECOND * 2).expect("memory");
        let mut allowance = Allowance::default();
        while bucket.reserve(LEAST) <= Instant::now() {}
        let wait = allowance
            .take(&bucket, 1 << 20)
            .expect_err("all credit is gone");
        assert_eq!(allowance.take(&bucket, 1 << 20), Err(wait));
        std::thread::sleep(wait.saturating_duration_since(Instant::now()));
        assert_eq!(allowance.take(&bucket, 1 << 20), Ok(2 * LEAST));
        allowance.moved(LEAST);
        assert_eq!(allowance.take(&bucket, 100), Ok(100));
    }
}
