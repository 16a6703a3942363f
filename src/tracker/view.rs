//! The registry from the side of those who only read it: children that serve a connection, or save the state.
//!
//! Nobody waits for a lock that a dying process could keep; see [`super::sequence`] for how a reader knows that what it
//! read belongs together.

use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;

use fastrand::Rng;

use super::record::{List, Place, Record};
use super::shares::Refusal;
use super::tables::{Number, Tables};
use crate::hash::CascadeHash;
use crate::wire::tracker::{MAX_RECORDS, PeerRecord};

/// Up to this many peers of a file are all looked at, in random order, until enough are found; beyond, as many are
/// drawn at random. So a list has a bounded cost, and misses peers only where nearly all others have expired.
const LOOKS: u32 = 128;

/// Reads the registry.
#[derive(Debug, Clone)]
pub struct View(pub(super) Arc<Tables>);

/// A registered peer, with all that is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// The file that it serves.
    pub hash: CascadeHash,
    /// The peer, as clients see it.
    pub peer: PeerRecord,
    /// Who registered it; of an IPv6 address only the network.
    pub source: IpAddr,
}

impl View {
    /// Whether peers of this file are registered, or may come to be.
    pub fn tracks(&self, hash: &CascadeHash) -> bool {
        // The files of a tracker that is not open stay the same.
        self.0.open || self.0.find_file(hash).is_some()
    }

    /// How many peers are registered, over all files; some may have expired.
    pub fn len(&self) -> u32 {
        self.0.number(Number::Records)
    }

    /// Whether no peer is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many peers may be registered.
    pub fn capacity(&self) -> u32 {
        self.0.shares.capacity
    }

    /// A number that is another one after each change.
    pub fn version(&self) -> u64 {
        self.0.sequence.version()
    }

    /// At most 20 of a file's peers that have not expired: good ones first, then others, both chosen at random.
    /// Leaves out the peer that asks.
    ///
    /// # Errors
    /// Where the file is not tracked, or the owner writes without a pause.
    pub fn list(
        &self,
        hash: &CascadeHash,
        asking: SocketAddrV4,
        now: u32,
        rng: &mut Rng,
    ) -> Result<Vec<PeerRecord>, Refusal> {
        self.0.sequence.read(|| {
            let Some(file) = self.0.find_file(hash) else {
                return if self.0.open {
                    Ok(Vec::new())
                } else {
                    Err(Refusal::NotTracked)
                };
            };
            let mut chosen = Vec::with_capacity(MAX_RECORDS);
            for good in [true, false] {
                let list = List { file, good };
                self.choose(list, rng, &mut chosen, |record| {
                    record.peer != asking && !self.0.is_expired(record.last_seen, now)
                });
            }
            Ok(chosen)
        })?
    }

    /// Whether the owner would register this peer, as things are now.
    ///
    /// # Errors
    /// The reason why it would not.
    pub fn would_accept(
        &self,
        hash: &CascadeHash,
        peer: SocketAddrV4,
        source: IpAddr,
    ) -> Result<(), Refusal> {
        self.0
            .sequence
            .read(|| self.0.admit(hash, peer, source.into()))?
            .map(|_| ())
    }

    /// All that is registered, in no order. Each registration is consistent; what is registered or removed meanwhile
    /// may be among them or not.
    pub fn registrations(&self) -> impl Iterator<Item = Registration> + '_ {
        (0..self.0.number(Number::Highest)).filter_map(|id| {
            self.0
                .sequence
                .read(|| self.registration(id))
                .ok()
                .flatten()
        })
    }

    fn registration(&self, id: u32) -> Option<Registration> {
        let record = self.0.record(id)?;
        Some(Registration {
            hash: self.0.file(record.place.list.file),
            peer: record.into(),
            source: self.0.source(record.source).into(),
        })
    }

    /// Adds records of a list, in random order, until there are 20 or it has looked long enough.
    fn choose(
        &self,
        list: List,
        rng: &mut Rng,
        chosen: &mut Vec<PeerRecord>,
        wanted: impl Fn(&Record) -> bool,
    ) {
        for position in draw(self.0.list_length(list), rng) {
            if chosen.len() >= MAX_RECORDS {
                return;
            }
            let record = self
                .0
                .find_place(Place { list, position })
                .and_then(|id| self.0.record(id));
            chosen.extend(record.filter(&wanted).map(PeerRecord::from));
        }
    }
}

/// Different numbers below `length` in random order: all of them, or as many as are looked at.
fn draw(length: u32, rng: &mut Rng) -> impl Iterator<Item = u32> + '_ {
    let mut drawn: Vec<u32> = Vec::with_capacity(LOOKS.min(length) as usize);
    let mut all: Vec<u32> = (0..if length <= LOOKS { length } else { 0 }).collect();
    (0..length.min(LOOKS)).filter_map(move |_| {
        if length <= LOOKS {
            return Some(all.swap_remove(rng.usize(..all.len())));
        }
        let number = rng.u32(..length);
        let new = !drawn.contains(&number);
        drawn.push(number);
        new.then_some(number)
    })
}
