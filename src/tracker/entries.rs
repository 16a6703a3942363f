//! The registered peers, in memory that its owner writes and all others read: the part of the registry's [`Tables`]
//! that can be used without the hash key.
//!
//! | table | an entry |
//! |---|---|
//! | chunks | seven registered peers of one list: addresses, last seen, source |
//! | files | a cascade hash, the lengths of the file's lists, one for each [`Class`], and what is known of it |
//! | sources | who registers: its key |
//!
//! [`Tables`]: super::tables::Tables

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::record::{CHUNK_RECORDS, Class, List, Part, RECORD_WORDS, Record};
use super::registry::Description;
use super::sequence::Sequence;
use crate::hash::{CascadeHash, HASH_LEN};
use crate::net::source::Source;
use crate::sys::shared::Shared;

/// Words of a chunk: what it is, one to spare, and the records; 128 bytes.
const CHUNK_WORDS: usize = 2 + CHUNK_RECORDS as usize * RECORD_WORDS;
/// Words of a cascade hash, and of an entry that has one: the lengths of its lists, two to a word, and what is
/// known of it, follow.
const HASH_WORDS: usize = HASH_LEN / 8;
const FILE_WORDS: usize = HASH_WORDS + 3;
/// The word of a file that has two flags, and above them one more than the number of blocks, or 0.
const ABOUT: usize = HASH_WORDS + 2;
const FILE_FLAGS: u32 = 2;
/// The entry is in use; the file is not tracked any more, and has peers yet.
const FILE_USED: u64 = 1;
const FILE_RETIRED: u64 = 2;

/// Words of a name: one byte with its length, and the bytes. A longer one is cut.
const NAME_WORDS: usize = 16;
const NAME_BYTES: usize = NAME_WORDS * 8 - 1;

/// Single numbers that readers also need.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// Records in use.
    Records,
    /// Chunks that were ever in use: none lies above.
    Chunks,
    /// The share of one file, which depends on how many there are.
    PerHash,
}

/// The capacity and kind of a registry, which never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Records.
    pub capacity: u32,
    /// Chunks.
    pub chunks: u32,
    /// Files.
    pub files: u32,
    /// Seconds after which a record that was not renewed has expired.
    pub ttl: u32,
    /// Whether any file may come.
    pub open: bool,
}

/// The tables. Fields are written by the owner only, between two versions of `sequence`.
#[derive(Debug)]
pub(super) struct Entries {
    pub sequence: Sequence,
    pub limits: Limits,
    numbers: Shared<AtomicU64>,
    chunks: Shared<AtomicU64>,
    files: Shared<AtomicU64>,
    sources: Shared<AtomicU64>,
    /// The names of files. Those without one take no memory: the pages are not touched.
    names: Shared<AtomicU64>,
}

impl Entries {
    /// Empty tables.
    ///
    /// # Errors
    /// Where the memory cannot be mapped.
    pub fn new(limits: Limits) -> io::Result<Self> {
        let [numbers, chunks, files, sources] = limits.words();
        Ok(Self {
            sequence: Sequence::new()?,
            limits,
            numbers: Shared::guarded_and_passable(numbers)?,
            chunks: Shared::guarded_and_passable(chunks)?,
            files: Shared::guarded_and_passable(files)?,
            sources: Shared::guarded_and_passable(sources)?,
            names: Shared::guarded_and_passable(limits.words_of_names())?,
        })
    }

    /// The descriptors from which another process maps the same tables for reading, with [`Entries::passed`].
    pub fn descriptors(&self) -> Option<[BorrowedFd<'_>; 6]> {
        Some([
            self.sequence.descriptor()?,
            self.numbers.descriptor()?,
            self.chunks.descriptor()?,
            self.files.descriptor()?,
            self.sources.descriptor()?,
            self.names.descriptor()?,
        ])
    }

    /// Maps tables that another process passed.
    ///
    /// # Errors
    /// Where they are none of this size.
    pub fn passed(limits: Limits, descriptors: [OwnedFd; 6]) -> io::Result<Self> {
        let words = limits.words();
        let [sequence, numbers, chunks, files, sources, names] = descriptors;
        Ok(Self {
            sequence: Sequence::passed(sequence)?,
            limits,
            numbers: Shared::passed(numbers, words[0])?,
            chunks: Shared::passed(chunks, words[1])?,
            files: Shared::passed(files, words[2])?,
            sources: Shared::passed(sources, words[3])?,
            names: Shared::passed(names, limits.words_of_names())?,
        })
    }

    /// Words of memory, once every page was touched.
    #[cfg(test)]
    pub fn words(&self) -> usize {
        self.limits.words().iter().sum()
    }

    /// Whether a record with this time has expired. One with a time in the future has not.
    pub fn is_expired(&self, last_seen: u32, now: u32) -> bool {
        now.saturating_sub(last_seen) >= self.limits.ttl
    }

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
        self.set_about_file(id, 0);
    }

    pub fn free_source_after(&self, id: u32) -> u32 {
        load(&self.sources, id as usize) as u32
    }

    pub fn set_free_source_after(&self, id: u32, next: u32) {
        store(&self.sources, id as usize, next.into());
    }

    pub fn source(&self, id: u32) -> Source {
        Source(load(&self.sources, id as usize))
    }

    pub fn set_source(&self, id: u32, source: Source) {
        store(&self.sources, id as usize, source.0);
    }

    pub fn file(&self, id: u32) -> CascadeHash {
        let mut hash = [0; HASH_LEN];
        for (word, bytes) in hash.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            *bytes = load(&self.files, id as usize * FILE_WORDS + word).to_ne_bytes();
        }
        CascadeHash(hash)
    }

    /// A file with empty lists.
    pub fn set_file(&self, id: u32, hash: &CascadeHash) {
        let at = id as usize * FILE_WORDS;
        for (word, bytes) in hash.0.as_chunks::<8>().0.iter().enumerate() {
            store(&self.files, at + word, u64::from_ne_bytes(*bytes));
        }
        store(&self.files, at + HASH_WORDS, 0);
        store(&self.files, at + HASH_WORDS + 1, 0);
        store(&self.files, at + ABOUT, FILE_USED);
    }

    /// Whether a file is tracked: its entry is in use, and it was not retired.
    pub fn is_tracked(&self, id: u32) -> bool {
        self.about_file(id) & (FILE_USED | FILE_RETIRED) == FILE_USED
    }

    pub fn set_retired(&self, id: u32, retired: bool) {
        let flag = if retired { FILE_RETIRED } else { 0 };
        self.set_about_file(id, self.about_file(id) & !FILE_RETIRED | flag);
    }

    /// How many blocks a file has, where that is known.
    pub fn blocks(&self, id: u32) -> Option<u32> {
        u32::try_from((self.about_file(id) >> FILE_FLAGS).checked_sub(1)?).ok()
    }

    /// Sets what is known of a file.
    pub fn set_description(&self, id: u32, description: Option<&Description>) {
        self.set_blocks(id, description.map(|description| description.blocks));
        self.set_name(id, description.map_or("", |description| &description.name));
    }

    /// The name of a file, where one is known.
    pub fn name(&self, id: u32) -> Option<String> {
        let at = id as usize * NAME_WORDS;
        let words = (at..at + NAME_WORDS).map(|at| load(&self.names, at).to_ne_bytes());
        let bytes: Vec<u8> = words.flatten().collect();
        let (length, bytes) = bytes.split_first()?;
        let name = bytes
            .get(..usize::from(*length))
            .filter(|name| !name.is_empty())?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    fn set_name(&self, id: u32, name: &str) {
        let at = id as usize * NAME_WORDS;
        // What was never touched stays so.
        if name.is_empty() && load(&self.names, at) == 0 {
            return;
        }
        let ends = (0..=name.len().min(NAME_BYTES)).rev();
        let end = ends.into_iter().find(|end| name.is_char_boundary(*end));
        let name = &name[..end.unwrap_or(0)];
        let mut bytes = [0; NAME_WORDS * 8];
        bytes[0] = name.len() as u8;
        bytes[1..=name.len()].copy_from_slice(name.as_bytes());
        for (word, bytes) in bytes.as_chunks::<8>().0.iter().enumerate() {
            store(&self.names, at + word, u64::from_ne_bytes(*bytes));
        }
    }

    fn set_blocks(&self, id: u32, blocks: Option<u32>) {
        let flags = self.about_file(id) & (FILE_USED | FILE_RETIRED);
        let blocks = blocks.map_or(0, |blocks| u64::from(blocks) + 1);
        self.set_about_file(id, blocks << FILE_FLAGS | flags);
    }

    fn about_file(&self, id: u32) -> u64 {
        load(&self.files, id as usize * FILE_WORDS + ABOUT)
    }

    fn set_about_file(&self, id: u32, word: u64) {
        store(&self.files, id as usize * FILE_WORDS + ABOUT, word);
    }

    /// How many places a list has.
    pub fn list_length(&self, list: List) -> u32 {
        let (at, shift) = length_at(list);
        (load(&self.files, at) >> shift) as u32
    }

    /// How many records a file has.
    pub fn records_of_file(&self, file: u32) -> u32 {
        let length = |class| self.list_length(List { file, class });
        Class::ALL
            .into_iter()
            .map(length)
            .fold(0, u32::saturating_add)
    }

    pub fn set_list_length(&self, list: List, length: u32) {
        let (at, shift) = length_at(list);
        let other = load(&self.files, at) & !(u64::from(u32::MAX) << shift);
        store(&self.files, at, other | u64::from(length) << shift);
    }
}

impl Limits {
    /// How many sources there can be: each has a record, and one takes a record over before its former one goes.
    pub fn sources(capacity: u32) -> u32 {
        capacity.saturating_add(1)
    }

    fn words_of_names(&self) -> usize {
        self.files as usize * NAME_WORDS
    }

    /// The sizes of the tables, but for the names.
    fn words(&self) -> [usize; 4] {
        [
            Number::PerHash as usize + 1,
            self.chunks as usize * CHUNK_WORDS,
            self.files as usize * FILE_WORDS,
            Self::sources(self.capacity) as usize,
        ]
    }
}

/// The word that has the length of a list, and where in it: two lengths share one.
fn length_at(list: List) -> (usize, u32) {
    let class = list.class as usize;
    let at = list.file as usize * FILE_WORDS + HASH_WORDS + class / 2;
    (at, if class.is_multiple_of(2) { 0 } else { 32 })
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
