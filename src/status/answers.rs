//! The answers of peers about how much they have: a table in shared memory with one writer.
//!
//! An entry is a file, a peer, and the number of its blocks.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use crate::hash::{CascadeHash, HASH_LEN};
use crate::sys::shared::Shared;

/// The number of entries; 192 KiB in all.
const ENTRIES: usize = 4096;
/// Words of an entry: the hash, the address, the answer.
const ADDRESS: usize = HASH_LEN / 8;
const ANSWER: usize = ADDRESS + 1;
const WORDS: usize = ANSWER + 1;
/// In the word of an answer, above the number: there is one; it is that all blocks are there. Above that, how often the
/// entry has changed: whoever reads it while it does will see another word afterwards.
const ANSWERED: u64 = 1 << 32;
const ALL: u64 = 1 << 33;
const CHANGE: u64 = 1 << 34;

/// Which peer was asked about which file.
pub type Key = (CascadeHash, SocketAddrV4);

/// How many blocks a peer said that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// All of them.
    All,
    /// This many.
    Some(u32),
}

impl Answer {
    /// How many of so many blocks that is, where that can be said.
    pub fn present(self, blocks: Option<u32>) -> Option<u32> {
        match self {
            Self::All => blocks,
            Self::Some(present) => Some(blocks.map_or(present, |blocks| present.min(blocks))),
        }
    }

    /// Whether it is all of them, where that can be said.
    pub fn is_complete(self, blocks: Option<u32>) -> Option<bool> {
        match self {
            Self::All => Some(true),
            Self::Some(present) => blocks.map(|blocks| present >= blocks),
        }
    }

    fn word(self) -> u64 {
        match self {
            Self::All => ANSWERED | ALL,
            Self::Some(present) => ANSWERED | u64::from(present),
        }
    }

    fn from_word(word: u64) -> Option<Self> {
        match word {
            word if word & ANSWERED == 0 => None,
            word if word & ALL != 0 => Some(Self::All),
            word => Some(Self::Some(word as u32)),
        }
    }
}

/// The table.
#[derive(Debug)]
pub struct Answers {
    words: Shared<AtomicU64>,
}

impl Answers {
    /// An empty table.
    ///
    /// # Errors
    /// Where the memory cannot be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            words: Shared::new(ENTRIES * WORDS)?,
        })
    }

    /// The number of entries: the places of [`Answers::set`].
    pub const fn places() -> usize {
        ENTRIES
    }

    /// Excludes the table from the memory of future children.
    ///
    /// # Errors
    /// As madvise(2).
    pub fn keep_from_children(&self) -> io::Result<()> {
        self.words.keep_from_children()
    }

    /// Makes the table read-only for this process and its future children.
    ///
    /// # Errors
    /// As mprotect(2).
    pub fn protect(&self) -> io::Result<()> {
        self.words.protect()
    }

    /// Stores an answer at this place, replacing any other. Only one process at a time may write.
    pub fn set(&self, place: usize, (hash, peer): &Key, answer: Answer) {
        let Some(entry) = self.words.as_chunks::<WORDS>().0.get(place) else {
            return;
        };
        // While it is being written there is none.
        let version = next_version(entry);
        entry[ANSWER].store(version, Relaxed);
        fence(Release);
        for (word, bytes) in entry.iter().zip(hash.0.as_chunks::<8>().0) {
            word.store(u64::from_ne_bytes(*bytes), Relaxed);
        }
        let address = u64::from(peer.ip().to_bits()) << 16 | u64::from(peer.port());
        entry[ADDRESS].store(address, Relaxed);
        entry[ANSWER].store(version | answer.word(), Release);
    }

    /// Removes the answer at this place.
    pub fn forget(&self, place: usize) {
        if let Some(entry) = self.words.as_chunks::<WORDS>().0.get(place) {
            entry[ANSWER].store(next_version(entry), Relaxed);
        }
    }

    /// Removes all answers.
    pub fn clear(&self) {
        (0..ENTRIES).for_each(|place| self.forget(place));
    }

    /// All answers.
    pub fn all(&self) -> HashMap<Key, Answer> {
        let entries = self.words.as_chunks::<WORDS>().0.iter();
        entries.filter_map(read).collect()
    }
}

/// The word of an entry without an answer that has changed once more.
fn next_version(entry: &[AtomicU64; WORDS]) -> u64 {
    (entry[ANSWER].load(Relaxed) & !(CHANGE - 1)).wrapping_add(CHANGE)
}

/// Reads an entry; `None` where it was written meanwhile.
fn read(entry: &[AtomicU64; WORDS]) -> Option<(Key, Answer)> {
    let before = entry[ANSWER].load(Acquire);
    let answer = Answer::from_word(before)?;
    let mut hash = [0; HASH_LEN];
    for (bytes, word) in hash.as_chunks_mut::<8>().0.iter_mut().zip(entry) {
        *bytes = word.load(Relaxed).to_ne_bytes();
    }
    let address = entry[ADDRESS].load(Relaxed);
    fence(Acquire);
    if entry[ANSWER].load(Relaxed) != before {
        return None;
    }
    let peer = SocketAddrV4::new(Ipv4Addr::from((address >> 16) as u32), address as u16);
    Some(((CascadeHash(hash), peer), answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Key {
        let peer = SocketAddrV4::new([192, 0, 2, number].into(), 9000);
        (CascadeHash([number; 32]), peer)
    }

    #[test]
    fn an_answer_is_there_until_another_takes_its_place() {
        let answers = Answers::new().expect("memory");
        assert!(answers.all().is_empty());
        answers.set(0, &key(1), Answer::All);
        answers.set(Answers::places() - 1, &key(2), Answer::Some(7));
        answers.set(Answers::places(), &key(3), Answer::All);
        let expected = [(key(1), Answer::All), (key(2), Answer::Some(7))];
        assert_eq!(answers.all(), expected.into());
        answers.set(0, &key(4), Answer::Some(0));
        answers.forget(Answers::places() - 1);
        answers.forget(Answers::places());
        assert_eq!(answers.all(), [(key(4), Answer::Some(0))].into());
        answers.clear();
        assert!(answers.all().is_empty());
    }

    #[test]
    fn what_an_answer_says_depends_on_how_many_blocks_there_are() {
        let said = |answer: Answer, blocks| (answer.present(blocks), answer.is_complete(blocks));
        assert_eq!(said(Answer::All, Some(9)), (Some(9), Some(true)));
        assert_eq!(said(Answer::All, None), (None, Some(true)));
        assert_eq!(said(Answer::Some(3), Some(9)), (Some(3), Some(false)));
        assert_eq!(said(Answer::Some(99), Some(9)), (Some(9), Some(true)));
        assert_eq!(said(Answer::Some(3), None), (Some(3), None));
    }
}
