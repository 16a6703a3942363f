//! The registry's memory: tables of atomics that the owner shares with the children it forks.
//!
//! | table | an entry |
//! |---|---|
//! | chunks | seven registered peers of one list: addresses, last seen, source |
//! | files | a cascade hash, and the lengths of the file's two lists: good peers, and others |
//! | sources | who registers: its key, and how many records it has |
//!
//! A list is dense: its records are numbered from 0, and all of its chunks but the last are full, so that a random
//! record of a file is one look-up away. Four indices find entries: files by cascade hash, records by peer, chunks by
//! their part of a list, and sources. Strangers choose most of what is hashed, so the hash has a secret key.
//!
//! There is one writer: nobody else has a mapping that can be written ([`Shared::guarded`]). A sequence lock tells readers whether what they read belongs together: its number is odd
//! while something is being written, and another one afterwards. Nothing that a reader finds is believed to be in
//! bounds, so that the worst of an inconsistent read is a wrong answer, which is thrown away.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::index::Index;
use super::record::{CHUNK_RECORDS, List, Part, RECORD_WORDS, Record, address_word};
use super::sequence::Sequence;
use super::shares::{Refusal, Shares};
use crate::hash::{CascadeHash, HASH_LEN};
use crate::net::source::Source;
use crate::sys::shared::Shared;

/// Words of a chunk: what it is, one to spare, and the records; 128 bytes.
const CHUNK_WORDS: usize = 2 + CHUNK_RECORDS as usize * RECORD_WORDS;
/// Words of a cascade hash, and of an entry that has one: the lengths of its lists follow.
const HASH_WORDS: usize = HASH_LEN / 8;
const FILE_WORDS: usize = HASH_WORDS + 1;
/// Single numbers that readers need as well.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// Records in use.
    Records,
    /// Chunks that were ever in use: none lies above.
    Chunks,
    /// The share of one file, which depends on how many there are.
    PerHash,
}

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
    pub sequence: Sequence,
    numbers: Shared<AtomicU64>,
    chunks: Shared<AtomicU64>,
    files: Shared<AtomicU64>,
    sources: Shared<AtomicU64>,
    source_counts: Shared<AtomicU32>,
    pub by_hash: Index,
    pub by_peer: Index,
    pub by_part: Index,
    pub by_source: Index,
    keys: RandomState,
    pub shares: Shares,
    /// Seconds after which a record that was not renewed has expired.
    pub ttl: u32,
    /// Whether any file may come.
    pub open: bool,
}

impl Tables {
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
        Ok(Self {
            sequence: Sequence::new()?,
            numbers: Shared::guarded(Number::PerHash as usize + 1)?,
            chunks: Shared::guarded(chunks as usize * CHUNK_WORDS)?,
            files: Shared::guarded(files as usize * FILE_WORDS)?,
            sources: Shared::guarded(Self::sources(capacity) as usize)?,
            source_counts: Shared::guarded(Self::sources(capacity) as usize)?,
            by_hash: Index::new(files)?,
            by_peer: Index::new(capacity)?,
            by_part: Index::new(chunks)?,
            by_source: Index::new(Self::sources(capacity))?,
            keys,
            shares,
            ttl,
            open,
        })
    }

    /// How many sources there can be: each has a record, and one takes a record over before its former one goes.
    pub fn sources(capacity: u32) -> u32 {
        capacity.saturating_add(1)
    }

    /// How many chunks there can be: the full ones, and the last one of each list that is not empty.
    pub fn chunks(capacity: u32, files: u32) -> u32 {
        let lists = files.saturating_mul(2).min(capacity);
        (capacity / CHUNK_RECORDS).saturating_add(lists)
    }

    /// Bytes of memory, once every page was touched.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let words = self.numbers.len() + self.chunks.len() + self.files.len() + self.sources.len();
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
            None if !self.open => Err(Refusal::NotTracked),
            _ if self.number(Number::Records) >= self.shares.capacity => Err(Refusal::Full),
            Some(file) if self.peers_of(file) >= self.number(Number::PerHash) => {
                Err(Refusal::HashShare)
            }
            _ if self.records_of(source) >= self.shares.per_source => Err(Refusal::SourceShare),
            _ => Ok(Admission::New(file)),
        }
    }

    /// Whether a record that was last seen then is to be forgotten. A time in the future is no reason to.
    pub fn is_expired(&self, last_seen: u32, now: u32) -> bool {
        now.saturating_sub(last_seen) >= self.ttl
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

    // The entries.

    pub fn number(&self, number: Number) -> u32 {
        load(&self.numbers, number as usize) as u32
    }

    pub fn set_number(&self, number: Number, value: u32) {
        store(&self.numbers, number as usize, value.into());
    }

    /// The record with this id, if it is in use. Ids number the records of all chunks.
    pub fn record(&self, id: u32) -> Option<Record> {
        let at = record_at(id);
        Record::from_words([load(&self.chunks, at), load(&self.chunks, at + 1)])
    }

    pub fn set_record(&self, id: u32, record: &Record) {
        for (word, value) in record.words().into_iter().enumerate() {
            store(&self.chunks, record_at(id) + word, value);
        }
    }

    pub fn clear_record(&self, id: u32) {
        store(&self.chunks, record_at(id), 0);
    }

    /// The list to which a record belongs.
    pub fn list_of(&self, id: u32) -> List {
        self.part(id / CHUNK_RECORDS).list
    }

    /// Which part of a list a chunk is.
    pub fn part(&self, chunk: u32) -> Part {
        Part::from_word(load(&self.chunks, chunk as usize * CHUNK_WORDS))
    }

    pub fn set_part(&self, chunk: u32, part: Part) {
        store(&self.chunks, chunk as usize * CHUNK_WORDS, part.word());
    }

    // Entries that are not in use form lists; the number of the next one lies in them.

    pub fn free_chunk_after(&self, id: u32) -> u32 {
        load(&self.chunks, id as usize * CHUNK_WORDS) as u32
    }

    pub fn set_free_chunk_after(&self, id: u32, next: u32) {
        store(&self.chunks, id as usize * CHUNK_WORDS, next.into());
    }

    pub fn free_file_after(&self, id: u32) -> u32 {
        load(&self.files, id as usize * FILE_WORDS) as u32
    }

    pub fn set_free_file_after(&self, id: u32, next: u32) {
        store(&self.files, id as usize * FILE_WORDS, next.into());
    }

    pub fn free_source_after(&self, id: u32) -> u32 {
        load(&self.sources, id as usize) as u32
    }

    pub fn set_free_source_after(&self, id: u32, next: u32) {
        store(&self.sources, id as usize, next.into());
    }

    pub fn file(&self, id: u32) -> CascadeHash {
        let mut hash = [0; HASH_LEN];
        for (word, bytes) in hash.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            *bytes = load(&self.files, id as usize * FILE_WORDS + word).to_ne_bytes();
        }
        CascadeHash(hash)
    }

    /// A file with two empty lists.
    pub fn set_file(&self, id: u32, hash: &CascadeHash) {
        let at = id as usize * FILE_WORDS;
        for (word, bytes) in hash.0.as_chunks::<8>().0.iter().enumerate() {
            store(&self.files, at + word, u64::from_ne_bytes(*bytes));
        }
        store(&self.files, at + HASH_WORDS, 0);
    }

    /// How many places a list has.
    pub fn list_length(&self, list: List) -> u32 {
        let lengths = load(&self.files, list.file as usize * FILE_WORDS + HASH_WORDS);
        (lengths >> shift(list)) as u32
    }

    pub fn set_list_length(&self, list: List, length: u32) {
        let at = list.file as usize * FILE_WORDS + HASH_WORDS;
        let other = load(&self.files, at) & !(u64::from(u32::MAX) << shift(list));
        store(&self.files, at, other | u64::from(length) << shift(list));
    }

    pub fn source(&self, id: u32) -> Source {
        Source(load(&self.sources, id as usize))
    }

    pub fn set_source(&self, id: u32, source: Source) {
        store(&self.sources, id as usize, source.0);
    }

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

/// Both lengths of a file share a word.
fn shift(list: List) -> u32 {
    if list.good { 32 } else { 0 }
}

/// Where a record's words begin.
fn record_at(id: u32) -> usize {
    let (chunk, number) = (id / CHUNK_RECORDS, id % CHUNK_RECORDS);
    chunk as usize * CHUNK_WORDS + 2 + number as usize * RECORD_WORDS
}

fn load(cells: &[AtomicU64], at: usize) -> u64 {
    cells.get(at).map_or(0, |cell| cell.load(Relaxed))
}

fn store(cells: &Shared<AtomicU64>, at: usize, value: u64) {
    debug_assert!(at < cells.len(), "the owner writes within bounds");
    if let Some(cell) = cells.writing().get(at) {
        cell.store(value, Relaxed);
    }
}
