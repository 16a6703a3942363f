//! The registry's memory: tables of atomics that the owner shares with the children it forks.
//!
//! The registrations lie in the [`Entries`]; the tables add each source's number of records, and the indices.
//!
//! A list is dense: its records are numbered from 0, and all of its chunks but the last are full, so that a random
//! record of a file is one look-up away. Four indices find entries: files by cascade hash, records by peer, chunks by
//! their part of a list, and sources. Strangers choose most of what is hashed, so the hash has a secret key.
//!
//! There is one writer: no other process has a writable mapping ([`Shared::guarded`]). A sequence lock
//! ([`super::sequence`]) tells readers whether what they read is consistent. Readers check the bounds of everything
//! that they find, so that the worst effect of an inconsistent read is a wrong answer, which is discarded.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::crowds::{Counters, PEERS_OF_NETWORK, PORTS_OF_ADDRESS, network_of};
use super::entries::{Entries, Limits, Number};
use super::index::Index;
use super::record::{CHUNK_RECORDS, Class, List, Part, address_word};
use super::shares::{Refusal, Shares};
use crate::hash::CascadeHash;
use crate::net::source::Source;
use crate::sys::shared::Shared;

/// How many chunks are looked at for a record that may be dropped.
const CHUNKS_LOOKED_AT: u32 = 4096;

/// Whether a peer is registered from its own address.
pub(super) fn is_own(source: Source, peer: SocketAddrV4) -> bool {
    IpAddr::from(source) == *peer.ip()
}

/// What happens to a peer that registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It has this record already.
    Renewal(u32),
    /// It needs one; its file has an entry already, or not. Where there is no room, this record is dropped for it.
    New {
        /// The entry of its file.
        file: Option<u32>,
        /// The record that makes room.
        dropped: Option<u32>,
    },
}

/// All tables. Fields are written by the owner only, between two versions of `sequence`.
#[derive(Debug)]
pub(super) struct Tables {
    entries: Arc<Entries>,
    /// Records that each source pays for, and how many of these are at other addresses.
    source_counts: Shared<AtomicU32>,
    foreign_counts: Shared<AtomicU32>,
    /// Peers that registered themselves for a file, by address and by network.
    pub of_address: Counters,
    pub of_network: Counters,
    pub by_hash: Index,
    pub by_peer: Index,
    pub by_part: Index,
    pub by_source: Index,
    keys: RandomState,
    pub shares: Shares,
}

/// What is registered, which is found here.
impl Deref for Tables {
    type Target = Entries;

    fn deref(&self) -> &Entries {
        &self.entries
    }
}

impl Tables {
    /// What is registered, for those who look for nothing in particular.
    pub fn entries(&self) -> &Arc<Entries> {
        &self.entries
    }

    /// Empty tables for `files` files.
    ///
    /// # Errors
    /// Where the memory cannot be mapped.
    pub fn new(
        shares: Shares,
        files: u32,
        open: bool,
        ttl: u32,
        keys: RandomState,
    ) -> io::Result<Self> {
        let capacity = shares.capacity;
        let chunks = Self::chunks(capacity, files);
        let limits = Limits {
            capacity,
            chunks,
            files,
            ttl,
            open,
        };
        Ok(Self {
            entries: Arc::new(Entries::new(limits)?),
            source_counts: Shared::guarded(Limits::sources(capacity) as usize)?,
            foreign_counts: Shared::guarded(Limits::sources(capacity) as usize)?,
            of_address: Counters::new(capacity)?,
            of_network: Counters::new(capacity)?,
            by_hash: Index::new(files)?,
            by_peer: Index::new(capacity)?,
            by_part: Index::new(chunks)?,
            by_source: Index::new(Limits::sources(capacity))?,
            keys,
            shares,
        })
    }

    /// How many chunks there can be: the full ones, and the last one of each list that is not empty.
    pub fn chunks(capacity: u32, files: u32) -> u32 {
        let lists = files.saturating_mul(Class::ALL.len() as u32).min(capacity);
        (capacity / CHUNK_RECORDS).saturating_add(lists)
    }

    /// Bytes of memory, once every page was touched.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let words = self.entries.words();
        let indices = [&self.by_hash, &self.by_peer, &self.by_part, &self.by_source];
        let counters = self.of_address.bytes() + self.of_network.bytes();
        let sources = (self.source_counts.len() + self.foreign_counts.len()) * 4;
        words * 8 + counters + sources + indices.map(Index::bytes).iter().sum::<usize>()
    }

    /// Whether, and how, a peer may register.
    pub fn admit(
        &self,
        hash: &CascadeHash,
        peer: SocketAddrV4,
        source: Source,
    ) -> Result<Admission, Refusal> {
        let file = self.find_file(hash);
        if let Some(id) = file.and_then(|file| self.find_peer(file, peer)) {
            return Ok(Admission::Renewal(id));
        }
        if file.is_none() && !self.limits.open {
            return Err(Refusal::NotTracked);
        }
        // Whoever registers itself takes the place of one whom somebody else registered.
        let is_own = is_own(source, peer);
        let is_full = self.number(Number::Records) >= self.shares.capacity;
        let has_share =
            file.is_some_and(|file| self.records_of_file(file) >= self.number(Number::PerHash));
        let dropped = match (is_full, has_share) {
            (false, false) => None,
            _ if !is_own => None,
            (_, true) => file.and_then(|file| self.last_of(file)),
            (true, false) => file
                .and_then(|file| self.last_of(file))
                .or_else(|| self.last_of_any()),
        };
        match self.find_source(source) {
            _ if is_full && dropped.is_none() => Err(Refusal::Full),
            _ if has_share && dropped.is_none() => Err(Refusal::HashShare),
            Some(id) if self.source_count(id) >= self.shares.per_source => {
                Err(Refusal::SourceShare)
            }
            Some(id) if !is_own && self.foreign_count(id) >= self.shares.foreign => {
                Err(Refusal::ForeignShare)
            }
            _ => Ok(Admission::New { file, dropped }),
        }
    }

    /// A record of a file that may be dropped for another.
    fn last_of(&self, file: u32) -> Option<u32> {
        let list = List {
            file,
            class: Class::Last,
        };
        let last = self.list_length(list).checked_sub(1)?;
        self.find_in_list(list, last)
    }

    /// One of any file: of those chunks that are looked at, which are a bounded number.
    fn last_of_any(&self) -> Option<u32> {
        let chunks = self.number(Number::Chunks).min(CHUNKS_LOOKED_AT);
        let mut lists = (0..chunks)
            .filter(|chunk| self.record(chunk * CHUNK_RECORDS).is_some())
            .map(|chunk| self.part(chunk).list);
        self.last_of(lists.find(|list| list.class == Class::Last)?.file)
    }

    // Finding.

    pub fn find_file(&self, hash: &CascadeHash) -> Option<u32> {
        self.by_hash
            .find(self.hash_of_file(hash), |id| self.file(id) == *hash)
    }

    pub fn find_peer(&self, file: u32, peer: SocketAddrV4) -> Option<u32> {
        self.by_peer.find(self.hash_of_peer(file, peer), |id| {
            self.record(id).is_some_and(|record| record.peer == peer)
                && self.list_of(id).file == file
        })
    }

    /// The chunk that is this part of a list.
    pub fn find_chunk(&self, part: Part) -> Option<u32> {
        self.by_part
            .find(self.hash_of_part(part), |chunk| self.part(chunk) == part)
    }

    /// The record with this number in a list.
    pub fn find_in_list(&self, list: List, position: u32) -> Option<u32> {
        let part = Part {
            list,
            number: position / CHUNK_RECORDS,
        };
        Some(self.find_chunk(part)? * CHUNK_RECORDS + position % CHUNK_RECORDS)
    }

    pub fn find_source(&self, source: Source) -> Option<u32> {
        self.by_source
            .find(self.hash_of_source(source), |id| self.source(id) == source)
    }

    /// Whether as many peers of this address, or of its network, registered themselves for a file as are let in front
    /// of others. On this host there may be as many as you like: nobody elsewhere can come from its loopback addresses.
    pub fn is_crowded(&self, file: u32, address: Ipv4Addr) -> bool {
        let (of_address, of_network) = self.hashes_of_crowds(file, address);
        !address.is_loopback()
            && (self.of_address.get(of_address) >= PORTS_OF_ADDRESS
                || self.of_network.get(of_network) >= PEERS_OF_NETWORK)
    }

    /// The hashes under which peers of this address and of its network are counted.
    pub fn hashes_of_crowds(&self, file: u32, address: Ipv4Addr) -> (u64, u64) {
        (
            self.keys.hash_one((file, address.to_bits())),
            self.keys.hash_one((file, network_of(address))),
        )
    }

    pub fn hash_of_file(&self, hash: &CascadeHash) -> u64 {
        self.keys.hash_one(hash)
    }

    pub fn hash_of_peer(&self, file: u32, peer: SocketAddrV4) -> u64 {
        self.keys.hash_one((file, address_word(peer)))
    }

    /// The hash of a record in use.
    pub fn hash_of_record(&self, id: u32) -> u64 {
        self.record(id).map_or(0, |record| {
            self.hash_of_peer(self.list_of(id).file, record.peer)
        })
    }

    pub fn hash_of_part(&self, part: Part) -> u64 {
        self.keys.hash_one(part.word())
    }

    pub fn hash_of_source(&self, source: Source) -> u64 {
        self.keys.hash_one(source)
    }

    // The sources.

    pub fn source_count(&self, id: u32) -> u32 {
        self.source_counts
            .get(id as usize)
            .map_or(0, |count| count.load(Relaxed))
    }

    pub fn foreign_count(&self, id: u32) -> u32 {
        self.foreign_counts
            .get(id as usize)
            .map_or(0, |count| count.load(Relaxed))
    }

    pub fn set_foreign_count(&self, id: u32, value: u32) {
        if let Some(count) = self.foreign_counts.writing().get(id as usize) {
            count.store(value, Relaxed);
        }
    }

    pub fn set_source_count(&self, id: u32, value: u32) {
        if let Some(count) = self.source_counts.writing().get(id as usize) {
            count.store(value, Relaxed);
        }
    }
}
