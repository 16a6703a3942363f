//! What the plan keeps of each peer and each worker.

use std::net::SocketAddr;
use std::time::Duration;

use crate::download::knowledge::Knowledge;

/// The rate of a worker is that of about so many seconds. Responses come in bursts when a lost packet held them up:
/// what a single one seems to say must not count for much.
const MEMORY: f64 = 1.0;

/// A block that a worker was given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued {
    pub(super) block: u32,
    /// When.
    pub(super) given: Duration,
    /// It is only named in a request for a map: others may fetch it.
    pub(super) named: bool,
}

/// A peer, as far as it is known.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) dropped: bool,
    pub(super) lacks_file: bool,
    pub(super) failures: u32,
    pub(super) not_before: Duration,
    pub(super) fetched: u64,
    /// How many connections it was found to serve at once.
    pub(super) seats: usize,
    pub(super) knowledge: Knowledge,
}

/// A worker, as far as the plan knows.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) peer: SocketAddr,
    pub(super) hired: Duration,
    /// Blocks it was given, in order.
    pub(super) queue: Vec<Queued>,
    pub(super) fetched: u64,
    /// When it last had an answer.
    pub(super) last_answer: Duration,
    /// Bytes a second; 0 while unknown.
    pub(super) rate: f64,
    /// Bytes that were fetched, and the seconds that it took; the past counts as no more than [`MEMORY`].
    pub(super) measured: (f64, f64),
    pub(super) misses: u32,
    pub(super) paused_until: Duration,
    pub(super) asking_map: bool,
    pub(super) retired: bool,
}

impl Peer {
    /// Nothing is known of it but this.
    pub(super) fn new(knowledge: Knowledge) -> Self {
        Self {
            dropped: false,
            lacks_file: false,
            failures: 0,
            not_before: Duration::ZERO,
            fetched: 0,
            seats: usize::MAX,
            knowledge,
        }
    }
}

impl Worker {
    /// One that was just hired.
    pub(super) fn new(peer: SocketAddr, now: Duration) -> Self {
        Self {
            peer,
            hired: now,
            queue: Vec::new(),
            fetched: 0,
            last_answer: Duration::ZERO,
            rate: 0.0,
            measured: (0.0, 0.0),
            misses: 0,
            paused_until: Duration::ZERO,
            asking_map: false,
            retired: false,
        }
    }

    /// So many bytes took so many seconds.
    pub(super) fn took(&mut self, bytes: f64, seconds: f64) {
        let (sum, time) = (self.measured.0 + bytes, self.measured.1 + seconds);
        let share = (MEMORY / time).min(1.0);
        self.measured = (sum * share, time * share);
        self.rate = sum / time;
    }
}
