//! What a server tells of itself: cascade-status(1), the JSON object. Names and meanings stay; others may be added.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::server::Tally;
use crate::service::Outcome;

/// The number of the format, another one where a name or a meaning does not stay.
pub const FORMAT: u32 = 1;

/// How a server is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`FORMAT`].
    pub format: u32,
    /// Who runs.
    #[serde(flatten)]
    pub about: About,
    /// When this was looked at, in seconds since the Unix epoch.
    pub now: u64,
    /// The connections of those whom it serves.
    pub connections: Connections,
    /// What depends on what it does.
    #[serde(flatten)]
    pub role: Role,
}

/// What stays the same while a server runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: i32,
    /// When it began, in seconds since the Unix epoch.
    pub started: u64,
    /// Where it listens for those whom it serves.
    pub listening: Vec<SocketAddr>,
}

impl About {
    /// This process, which listens there and has just begun.
    ///
    /// # Errors
    /// Where a socket is broken.
    pub fn now(listeners: &[TcpListener]) -> io::Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id() as i32,
            started: since.unwrap_or_default().as_secs(),
            listening: listeners
                .iter()
                .map(TcpListener::local_addr)
                .collect::<io::Result<_>>()?,
        })
    }
}

/// What became of connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    /// How many there are.
    pub now: u64,
    /// How many were let in, ever.
    pub accepted: u64,
    /// How many were not.
    pub turned_away: u64,
    /// Those of `accepted` that ended, by how they did.
    pub ended: Ended,
    /// Bytes that were sent.
    pub sent: u64,
    /// Bytes per second that are sent, over the last seconds.
    pub sent_per_second: f64,
}

/// Connections that ended, by how they did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// As the protocol has it.
    pub done: u64,
    /// The request was understood and refused.
    pub refused: u64,
    /// The client took too long.
    pub timed_out: u64,
    /// The request could not be understood.
    pub protocol_error: u64,
    /// The connection broke.
    pub disconnected: u64,
    /// The process that served it died.
    pub crashed: u64,
}

impl Ended {
    /// Each outcome, as programs call it.
    pub fn each(&self) -> [(Outcome, &'static str, u64); 6] {
        [
            (Outcome::Done, "done", self.done),
            (Outcome::Refused, "refused", self.refused),
            (Outcome::TimedOut, "timed_out", self.timed_out),
            (
                Outcome::ProtocolError,
                "protocol_error",
                self.protocol_error,
            ),
            (Outcome::Disconnected, "disconnected", self.disconnected),
            (Outcome::Crashed, "crashed", self.crashed),
        ]
    }
}

impl Connections {
    /// As the books have it.
    pub fn new(tally: &Tally, sent_per_second: f64) -> Self {
        Self {
            now: tally.live(),
            accepted: tally.accepted(),
            turned_away: tally.turned_away(),
            ended: Ended {
                done: tally.ended(Outcome::Done),
                refused: tally.ended(Outcome::Refused),
                timed_out: tally.ended(Outcome::TimedOut),
                protocol_error: tally.ended(Outcome::ProtocolError),
                disconnected: tally.ended(Outcome::Disconnected),
                crashed: tally.ended(Outcome::Crashed),
            },
            sent: tally.sent(),
            sent_per_second,
        }
    }

    /// As the log tells it.
    pub fn tally(&self) -> Tally {
        let ended = self
            .ended
            .each()
            .map(|(outcome, _, count)| (outcome, count));
        Tally::of(self.accepted, self.turned_away, self.sent, ended)
    }
}

/// What a server does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Role {
    /// It knows the peers of files.
    Tracker(Tracker),
    /// It serves files, and downloads what is missing of them.
    Peer(Peer),
}

/// A tracker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tracker {
    /// Whether any file may come.
    pub open: bool,
    /// Seconds after which a peer is forgotten.
    pub ttl: u32,
    /// How many peers are registered, over all files; some may have expired.
    pub peers: u32,
    /// How many may be.
    pub capacity: u32,
    /// How many files there are.
    pub tracked: u64,
    /// The files; not all, where there are very many.
    pub files: Vec<Tracked>,
}

/// A file that a tracker tracks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tracked {
    /// Its cascade hash.
    pub hash: String,
    /// What it is called, where the tracker has the cascade file.
    pub name: Option<String>,
    /// How many blocks it has, where the tracker has the cascade file.
    pub blocks: Option<u32>,
    /// How many peers are registered for it.
    pub peers: u32,
    /// Those of them for which the operator vouches.
    pub good: u32,
    /// Those of them that are known to have all of it.
    pub complete: u32,
    /// The peers; not all, where there are very many.
    pub registered: Vec<Registered>,
}

/// A peer that is registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// Where it listens.
    pub address: SocketAddrV4,
    /// Whether the operator vouches for it.
    pub good: bool,
    /// When it was seen last, in seconds since the Unix epoch.
    pub last_seen: u32,
    /// How many blocks it had when it was asked last, where it was and has answered.
    pub present: Option<u32>,
    /// Whether that is all of them, where that is known.
    pub complete: Option<bool>,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Bytes of blocks that were received.
    pub received: u64,
    /// Bytes per second that are received, over the last seconds.
    pub received_per_second: f64,
    /// How many peers are downloaded from, over all files.
    pub sources: u64,
    /// The files.
    pub files: Vec<Held>,
}

/// A file that a peer serves and downloads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The path of the data.
    pub file: String,
    /// The cascade hash.
    pub hash: String,
    /// Bytes of the data.
    pub length: u64,
    /// Bytes of a block.
    pub block_size: u64,
    /// How many blocks there are.
    pub blocks: u32,
    /// How many of them are there and right.
    pub present: u32,
    /// Bytes of these blocks.
    pub verified: u64,
    /// How far it is.
    pub state: State,
    /// How many peers it is downloaded from.
    pub sources: u64,
    /// Bytes of blocks that were received.
    pub received: u64,
    /// Bytes per second that are received, over the last seconds.
    pub received_per_second: f64,
}

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// What is there is being verified, or is about to be.
    Verifying,
    /// Something is missing, and it is not this file's turn.
    Waiting,
    /// What is missing is being downloaded.
    Downloading,
    /// All of it is there.
    Complete,
    /// Nothing more is done about it.
    GivenUp,
    /// Its cascade file is being searched for: its hash is known, and nothing else.
    Fetching,
    /// All blocks are there; the whole is checked, and made to survive a crash.
    Finishing,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Verifying,
        Self::Waiting,
        Self::Downloading,
        Self::Complete,
        Self::GivenUp,
        Self::Fetching,
        Self::Finishing,
    ];

    /// A few words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Verifying => "verifying",
            Self::Waiting => "waiting",
            Self::Downloading => "downloading",
            Self::Complete => "complete",
            Self::GivenUp => "given up",
            Self::Fetching => "fetching",
            Self::Finishing => "finishing",
        }
    }
}

/// A share, in per cent, rounded down: 100 is all.
pub fn per_cent(part: u64, whole: u64) -> u64 {
    match whole {
        0 => 100,
        whole => (u128::from(part) * 100 / u128::from(whole)) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::{peer, tracker};

    #[test]
    fn it_is_one_object_and_reads_back() {
        for status in [tracker(), peer()] {
            let json = serde_json::to_string(&status).expect("it can be encoded");
            let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            assert!(value["role"].is_string() && value["pid"].is_number());
            assert_eq!(value["connections"]["ended"]["protocol_error"], 1);
            let back: Status = serde_json::from_str(&json).expect("it is one");
            assert_eq!(back, status);
        }
    }

    #[test]
    fn what_a_later_version_adds_does_no_harm() {
        let mut value = serde_json::to_value(tracker()).expect("it can be encoded");
        value["new"] = serde_json::json!({"x": 1});
        value["connections"]["ended"]["new"] = 7.into();
        let back: Status = serde_json::from_value(value).expect("it is one");
        assert_eq!(back, tracker());
    }

    #[test]
    fn the_books_are_the_same_on_both_sides() {
        let tally = Tally::of(9, 2, 70, [(Outcome::Done, 3), (Outcome::Crashed, 1)]);
        assert_eq!(Connections::new(&tally, 0.0).tally(), tally);
    }

    #[test]
    fn only_all_is_100_per_cent() {
        assert_eq!(
            [per_cent(0, 0), per_cent(999_999, 1_000_000), per_cent(7, 7)],
            [100, 99, 100]
        );
        assert_eq!(per_cent(u64::MAX - 1, u64::MAX), 99);
    }
}
