//! A tracker's status, from the tables that it shares.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use super::answers::{Answer, Answers};
use super::rates::Rates;
use super::report::{About, Connections, FORMAT, Registered, Role, Status, Tracked, Tracker};
use super::service::Source;
use crate::hash::CascadeHash;
use crate::server::Ledger;
use crate::tracker::roll::{Most, Roll, RollFile, RollPeer};

/// The most that is reported, so that a page stays readable.
const MOST: Most = Most {
    files: 1000,
    peers: 1000,
    all_peers: 10_000,
};

/// A tracker, as the processes see it that report its status.
#[derive(Debug, Clone)]
pub struct TrackerSource {
    /// Who runs.
    pub about: About,
    /// The server's ledger.
    pub ledger: Arc<Ledger>,
    /// The registry.
    pub roll: Roll,
    /// The answers of peers about how much they have.
    pub answers: Option<Arc<Answers>>,
}

impl Source for TrackerSource {
    fn only_look(&self) -> io::Result<()> {
        self.answers
            .as_ref()
            .map_or(Ok(()), |answers| answers.protect())?;
        self.ledger.protect()
    }

    fn counters(&self) -> Vec<u64> {
        vec![self.ledger.tally().sent()]
    }

    fn status(&self, rates: &Rates, now: SystemTime) -> Status {
        let tally = self.ledger.tally();
        let sent_per_second = rates.rate(std::time::Instant::now(), 0, tally.sent());
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        Status {
            format: FORMAT,
            about: self.about.clone(),
            now,
            connections: Connections::new(&tally, sent_per_second),
            role: Role::Tracker(self.tracker(u32::try_from(now).unwrap_or(u32::MAX))),
        }
    }
}

impl TrackerSource {
    fn tracker(&self, now: u32) -> Tracker {
        let figures = self.roll.figures();
        let answers = self.answers.as_ref().map(|answers| answers.all());
        let known = |hash, peer: &RollPeer| {
            let key = (hash, peer.record.address);
            answers.as_ref()?.get(&key).copied()
        };
        Tracker {
            open: self.roll.is_open(),
            ttl: self.roll.ttl(),
            peers: figures.peers,
            capacity: figures.capacity,
            tracked: self.roll.tracked(),
            files: self
                .roll
                .files(now, MOST)
                .into_iter()
                .map(|file| tracked(&file, known))
                .collect(),
        }
    }
}

fn tracked(file: &RollFile, known: impl Fn(CascadeHash, &RollPeer) -> Option<Answer>) -> Tracked {
    let registered: Vec<Registered> = file
        .registered
        .iter()
        .map(|peer| {
            let answer = known(file.hash, peer);
            Registered {
                address: peer.record.address,
                good: peer.record.good,
                last_seen: peer.record.last_seen,
                present: answer.and_then(|answer| answer.present(file.blocks)),
                complete: answer.and_then(|answer| answer.is_complete(file.blocks)),
            }
        })
        .collect();
    let complete = registered.iter().filter(|peer| peer.complete == Some(true));
    Tracked {
        hash: file.hash.to_string(),
        name: file.name.clone(),
        blocks: file.blocks,
        peers: file.peers,
        good: file.good,
        complete: complete.count() as u32,
        registered,
    }
}
