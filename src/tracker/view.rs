//! The registry as its readers see it: children that serve a connection, or save the state.
//!
//! No reader waits for a lock that a dying process could keep; see the module `sequence` for how a reader knows that
//! what it read is consistent.

use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;

use fastrand::Rng;

use super::crowds::{PORTS_OF_ADDRESS, network_of};
use super::entries::Number;
use super::record::{CHUNK_RECORDS, Class, List, Record};
use super::roll::Roll;
use super::shares::Refusal;
use super::tables::Tables;
use crate::hash::CascadeHash;
use crate::wire::tracker::{MAX_RECORDS, PeerRecord};

/// Up to this many peers of a file are all looked at, in random order, until enough are found.
const FEW: u32 = 256;
/// Of a file with more peers, so many random parts are looked at until enough are found: a list has a bounded cost,
/// and misses peers only where nearly all others have expired.
const PARTS: usize = 32;
/// So many peers are taken of a part: neighbours are cheap, but they are no random choice.
const NEIGHBOURS: usize = 4;
/// So many of a response come from one network, where there are others.
const NETWORK_SHARE: usize = 5;

/// Reads the registry.
#[derive(Debug, Clone)]
pub struct View(pub(super) Arc<Tables>);

/// A registered peer, with everything known about it.
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
        self.0.limits.open || self.0.find_file(hash).is_some()
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

    /// The same registry, for who tells of it.
    pub fn roll(&self) -> Roll {
        Roll(Arc::clone(self.0.entries()))
    }

    /// A version that differs after each change.
    pub fn version(&self) -> u64 {
        self.0.sequence.version()
    }

    /// At most 20 of a file's peers that have not expired: good ones first, then those that registered themselves, then
    /// others, each chosen at random, of different networks where there are such. Leaves out the peer that asks.
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
                return if self.0.limits.open {
                    Ok(Vec::new())
                } else {
                    Err(Refusal::NotTracked)
                };
            };
            let mut sample = Sample::new();
            for class in Class::ALL {
                let list = List { file, class };
                let is_wanted = |record: &Record| {
                    record.peer != asking && !self.0.is_expired(record.last_seen, now)
                };
                self.choose(list, rng, &mut sample, is_wanted);
            }
            Ok(sample.chosen)
        })?
    }

    /// Whether the owner would accept this peer at present.
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

    /// All registrations, in no particular order. Each is consistent; but registrations that change meanwhile may be
    /// included or not, and one that is moved may be missed or appear twice.
    pub fn registrations(&self) -> impl Iterator<Item = Registration> + '_ {
        (0..self.0.number(Number::Chunks) * CHUNK_RECORDS)
            .filter_map(|id| self.0.sequence.read(|| self.registration(id)).ok()?)
    }

    fn registration(&self, id: u32) -> Option<Registration> {
        let record = self.0.record(id)?;
        let list = self.0.list_of(id);
        Some(Registration {
            hash: self.0.file(list.file),
            peer: record.shown(list),
            source: self.0.source(record.source).into(),
        })
    }

    /// Adds records of a list, in random order, until there are 20 or it has looked long enough.
    fn choose(
        &self,
        list: List,
        rng: &mut Rng,
        sample: &mut Sample,
        is_wanted: impl Fn(&Record) -> bool,
    ) {
        let length = self.0.list_length(list);
        if length <= FEW {
            let all = (0..length).collect();
            self.choose_of(list, all, MAX_RECORDS, rng, sample, &is_wanted);
        } else {
            for number in random_parts(length, rng) {
                let first = number * CHUNK_RECORDS;
                let part = (first..length.min(first + CHUNK_RECORDS)).collect();
                self.choose_of(list, part, NEIGHBOURS, rng, sample, &is_wanted);
                if sample.is_full() {
                    break;
                }
            }
        }
        sample.end_class(rng);
    }

    /// Offers at most `most` of the records at these positions of a list, in random order.
    fn choose_of(
        &self,
        list: List,
        mut positions: Vec<u32>,
        most: usize,
        rng: &mut Rng,
        sample: &mut Sample,
        is_wanted: impl Fn(&Record) -> bool,
    ) {
        rng.shuffle(&mut positions);
        let records = positions
            .into_iter()
            .filter_map(|position| self.0.record(self.0.find_in_list(list, position)?))
            .filter(is_wanted);
        let mut taken = 0;
        for record in records {
            if sample.is_full() || taken == most {
                break;
            }
            taken += usize::from(sample.offer(record.shown(list)));
        }
    }
}

/// The records of one response, as they are chosen: no network fills it while there are others.
struct Sample {
    chosen: Vec<PeerRecord>,
    /// Where those of the present class begin.
    start: usize,
    /// Those of the present class that found no place beside others of their network.
    spare: Vec<PeerRecord>,
}

impl Sample {
    fn new() -> Self {
        Self {
            chosen: Vec::with_capacity(MAX_RECORDS),
            start: 0,
            spare: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.chosen.len() >= MAX_RECORDS
    }

    /// Takes a record, unless there are enough of its address or network; returns whether it did.
    fn offer(&mut self, record: PeerRecord) -> bool {
        let address = *record.address.ip();
        let network = network_of(address);
        let others = self.chosen.iter().map(|other| *other.address.ip());
        let (mut of_address, mut of_network) = (0, 0);
        for other in others {
            of_address += usize::from(other == address);
            of_network += usize::from(network_of(other) == network);
        }
        if of_address >= usize::from(PORTS_OF_ADDRESS) && !address.is_loopback() {
            return false;
        }
        if of_network >= NETWORK_SHARE && !record.good {
            if self.spare.len() < MAX_RECORDS {
                self.spare.push(record);
            }
            return false;
        }
        self.chosen.push(record);
        true
    }

    /// What is left of the room goes to those who were put off. Nobody shall see who lies beside whom.
    fn end_class(&mut self, rng: &mut Rng) {
        for record in std::mem::take(&mut self.spare) {
            let address = *record.address.ip();
            let same = self
                .chosen
                .iter()
                .filter(|other| *other.address.ip() == address);
            let is_crowd = same.count() >= usize::from(PORTS_OF_ADDRESS) && !address.is_loopback();
            if !self.is_full() && !is_crowd {
                self.chosen.push(record);
            }
        }
        rng.shuffle(&mut self.chosen[self.start..]);
        self.start = self.chosen.len();
    }
}

/// Different parts of a list of this length, in random order; long ones more often than a short one at the end.
fn random_parts(length: u32, rng: &mut Rng) -> Vec<u32> {
    let mut parts = Vec::with_capacity(PARTS);
    for _ in 0..PARTS {
        let part = rng.u32(..length) / CHUNK_RECORDS;
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts
}
