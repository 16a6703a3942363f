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
use std::net::SocketAddrV4;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::entries::{Entries, Limits, Number};
use super::index::Index;
use super::record::{CHUNK_RECORDS, List, Part, address_word};
use super::shares::{Refusal, Shares};
use crate::hash::CascadeHash;
use crate::net::source::Source;
use crate::sys::shared::Shared;

/// What happens to a peer that registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It has this record already.
    Renewal(u32),
    /// It needs one; its file has an entry already, or not.
    New(Option<u32>),
}

/// All tables. Fields are written by the owner only, between two versions of `sequence`.
#[derive(Debug)]
pub(super) struct Tables {
    entries: Arc<Entries>,
    source_counts: Shared<AtomicU32>,
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
        let lists = files.saturating_mul(2).min(capacity);
        (capacity / CHUNK_RECORDS).saturating_add(lists)
    }

    /// Bytes of memory, once every page was touched.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let words = self.entries.words();
        let indices = [&self.by_hash, &self.by_peer, &self.by_part, &self.by_source];
        words * 8 + self.source_counts.len() * 4 + indices.map(Index::bytes).iter().sum::<usize>()
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
        match file {
            None if !self.limits.open => Err(Refusal::NotTracked),
            _ if self.number(Number::Records) >= self.shares.capacity => Err(Refusal::Full),
            Some(file) if self.peers_of(file) >= self.number(Number::PerHash) => {
                Err(Refusal::HashShare)
            }
            _ if self.records_of(source) >= self.shares.per_source => Err(Refusal::SourceShare),
            _ => Ok(Admission::New(file)),
        }
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

    fn peers_of(&self, file: u32) -> u32 {
        let length = |good| self.list_length(List { file, good });
        length(true).saturating_add(length(false))
    }

    fn records_of(&self, source: Source) -> u32 {
        self.find_source(source)
            .map_or(0, |id| self.source_count(id))
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

    pub fn set_source_count(&self, id: u32, value: u32) {
        if let Some(count) = self.source_counts.writing().get(id as usize) {
            count.store(value, Relaxed);
        }
    }
}
