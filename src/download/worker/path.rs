//! The path to a peer, as a worker measures it: the round trip, and how much comes in during one (the bandwidth-delay
//! product). So much has to be asked for ahead, or the peer waits for requests.
//!
//! The round trip is that of a request that was sent while no other was outstanding: the shortest of them, since a
//! server may have been busy. The kernel knows the one to the other end of the connection, and notices when it grows; a
//! proxy may be in between. So the longer one of both counts.

use std::time::{Duration, Instant};

/// Bytes are counted for a round trip, but no shorter time: what the kernel had waiting says nothing about the path.
const SHORTEST_ROUND: Duration = Duration::from_millis(50);
/// Who takes longer to answer is busy, not far away.
const LONGEST: Duration = Duration::from_secs(5);
/// The most that came in during one of so many rounds counts: one lost packet is no narrower path.
const ROUNDS: usize = 8;
/// What may be under way on a long path of which nothing else is known.
const FIRST_UNDER_WAY: u64 = 256 << 10;
/// The most that is believed of a round trip: that of 1 Gbit/s around the world. What is asked for ahead takes no memory
/// here: a request has 64 bytes, and of what has come in the kernel keeps as much as it allows a socket.
const MAX_BYTES: u64 = 32 << 20;

/// What is said of the path.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// How long an answer takes to begin.
    pub round_trip: Duration,
    /// How many bytes may come in during this time: as many as did, and twice as many while they become more, as they do
    /// when a connection is new.
    pub bytes: u64,
}

impl Path {
    /// How much to ask for so that the path is full, whatever comes in during the next round trip.
    pub fn under_way(self) -> u64 {
        let first = match self.round_trip {
            near if near < SHORTEST_ROUND => 0,
            _ => FIRST_UNDER_WAY,
        };
        (2 * self.bytes.min(MAX_BYTES)).max(first)
    }

    /// Whether it differs from another one by so much that it matters.
    fn is_news(self, old: Self) -> bool {
        let differs = |new: u128, old: u128| new.abs_diff(old) * 8 > old;
        differs(self.round_trip.as_micros(), old.round_trip.as_micros())
            || differs(self.bytes.into(), old.bytes.into())
    }
}

/// The measuring.
#[derive(Debug)]
pub struct Meter {
    /// The shortest time until the answer to a request that was alone.
    answer: Option<Duration>,
    /// What the kernel says.
    kernel: Duration,
    /// When the round began, and what has come in since.
    began: Instant,
    received: u64,
    rounds: [u64; ROUNDS],
    round: usize,
    /// Whether in the last round much more has come in than before.
    grows: bool,
    said: Path,
}

impl Meter {
    /// Nothing is known.
    pub fn new(now: Instant) -> Self {
        Self {
            answer: None,
            kernel: Duration::ZERO,
            began: now,
            received: 0,
            rounds: [0; ROUNDS],
            round: 0,
            grows: false,
            said: Path::default(),
        }
    }

    /// The answer to a request has begun after this time; no other request was outstanding.
    pub fn answered(&mut self, took: Duration, now: Instant) {
        (self.began, self.received) = (now, 0);
        let took = took.min(LONGEST);
        self.answer = Some(self.answer.map_or(took, |known| known.min(took)));
    }

    /// Bytes have come in. At the end of a round the kernel is asked for its round trip.
    pub fn received(
        &mut self,
        bytes: u64,
        now: Instant,
        kernel: impl FnOnce() -> Option<Duration>,
    ) {
        self.received += bytes;
        let round_trip = self.round_trip();
        let took = now.saturating_duration_since(self.began);
        if took < round_trip.max(SHORTEST_ROUND) {
            return;
        }
        self.end_round(now);
        if let Some(kernel) = kernel() {
            self.kernel = kernel.min(LONGEST);
        }
    }

    /// A request is sent while nothing is outstanding: what has come in is all that there was.
    pub fn drained(&mut self, now: Instant) {
        if self.received > 0 {
            self.end_round(now);
        }
    }

    fn end_round(&mut self, now: Instant) {
        let took = now.saturating_duration_since(self.began);
        let round_trip = self.round_trip();
        let share = round_trip.as_secs_f64() / took.max(round_trip).as_secs_f64().max(1e-6);
        let bytes = (self.received as f64 * share) as u64;
        let most = self.rounds.iter().copied().max().unwrap_or(0);
        self.grows = bytes > most + most / 4;
        self.rounds[self.round % ROUNDS] = bytes;
        self.round += 1;
        (self.began, self.received) = (now, 0);
    }

    /// The round trip, as far as it is known.
    pub fn round_trip(&self) -> Duration {
        self.answer.unwrap_or_default().max(self.kernel)
    }

    /// What there is to be said that is new.
    pub fn news(&mut self) -> Option<Path> {
        let most = self.rounds.iter().copied().max().unwrap_or(0);
        let path = Path {
            round_trip: self.round_trip(),
            bytes: if self.grows { most * 2 } else { most },
        };
        if !path.is_news(self.said) {
            return None;
        }
        self.said = path;
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn meter(answer: Duration) -> (Meter, Instant) {
        let now = Instant::now();
        let mut meter = Meter::new(now);
        meter.answered(answer, now);
        (meter, now)
    }

    #[test]
    fn the_shortest_answer_is_the_round_trip_and_a_longer_one_of_the_kernel() {
        let (mut meter, now) = meter(900 * MS);
        meter.answered(300 * MS, now);
        meter.answered(500 * MS, now);
        assert_eq!(meter.round_trip(), 300 * MS);
        meter.received(1, now + 300 * MS, || Some(MS));
        assert_eq!(meter.round_trip(), 300 * MS);
        meter.received(1, now + 600 * MS, || Some(700 * MS));
        assert_eq!(meter.round_trip(), 700 * MS);
    }

    #[test]
    fn what_comes_in_during_a_round_trip_is_counted_and_the_most_of_late_counts() {
        let (mut meter, mut now) = meter(200 * MS);
        for bytes in [1000, 8000, 2000] {
            now += 100 * MS;
            meter.received(bytes / 2, now, || None);
            now += 100 * MS;
            meter.received(bytes / 2, now, || None);
        }
        assert_eq!(meter.news().map(|path| path.bytes), Some(8000));
        for _ in 0..ROUNDS {
            now += 400 * MS;
            meter.received(2000, now, || None);
        }
        assert_eq!(meter.news().map(|path| path.bytes), Some(1000));
    }

    #[test]
    fn without_a_distance_little_is_under_way_however_much_the_kernel_had_waiting() {
        let (mut meter, now) = meter(MS / 10);
        meter.received(4 << 20, now + MS, || None);
        assert_eq!(meter.news().map(|path| path.bytes), Some(0));
        meter.received(0, now + 50 * MS, || None);
        assert_eq!(
            meter.news().map(|path| path.bytes),
            Some(2 * ((4 << 20) / 500))
        );
    }

    #[test]
    fn small_changes_are_no_news() {
        let (mut meter, now) = meter(200 * MS);
        meter.received(8000, now + 200 * MS, || None);
        assert!(meter.news().is_some());
        meter.received(8200, now + 400 * MS, || None);
        assert!(meter.news().is_some(), "it does not grow any more");
        meter.received(8500, now + 500 * MS, || None);
        assert_eq!(meter.news(), None);
        meter.received(16000, now + 600 * MS, || None);
        assert!(meter.news().is_some());
    }
}
