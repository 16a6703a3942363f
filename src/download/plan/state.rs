//! What the plan keeps of each peer and each worker.

use std::net::SocketAddr;
use std::time::Duration;

use crate::download::knowledge::Knowledge;
use crate::download::worker::path::Path;
use crate::net::admission::Admitted;

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
    /// The user names it.
    pub(super) named: bool,
    /// Whether it has answered, whatever it was.
    pub(super) answered: bool,
    /// How often it was silent for too long while others waited for their turn.
    pub(super) turns: u32,
    /// What trackers say of it.
    pub(super) listed: Hearsay,
}

/// What trackers say of a peer.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Hearsay {
    /// An operator vouches for it.
    pub(super) good: bool,
    /// How many lists it was in.
    pub(super) lists: u32,
    /// Its first place in one of them.
    pub(super) place: u8,
    /// Since when.
    pub(super) since: Duration,
    /// When a tracker heard of it last, by the tracker's clock.
    pub(super) last_seen: u32,
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
    /// When an answer began last.
    pub(super) began: Duration,
    /// What it may connect with, until it ends.
    pub(super) admitted: Option<Admitted>,
    /// Bytes a second; 0 while unknown.
    pub(super) rate: f64,
    /// Bytes that were fetched, and the seconds that it took; the past counts as no more than [`MEMORY`].
    pub(super) measured: (f64, f64),
    /// The path to the peer.
    pub(super) path: Path,
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
            named: false,
            answered: false,
            turns: 0,
            listed: Hearsay::default(),
        }
    }

    /// Whether it has answered, and has sent a block or at least not been silent since.
    pub(super) fn is_proved(&self) -> bool {
        self.answered && (self.fetched > 0 || self.effort() == 0)
    }

    /// How often it was tried in vain of late.
    pub(super) fn effort(&self) -> u32 {
        self.failures.saturating_add(self.turns)
    }
}

impl Worker {
    /// One that was just hired.
    pub(super) fn new(peer: SocketAddr, admitted: Admitted, now: Duration) -> Self {
        Self {
            peer,
            admitted: Some(admitted),
            began: Duration::ZERO,
            hired: now,
            queue: Vec::new(),
            fetched: 0,
            last_answer: Duration::ZERO,
            rate: 0.0,
            measured: (0.0, 0.0),
            path: Path::default(),
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
