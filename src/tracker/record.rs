//! A registered peer, as it lies in the registry's memory, and where it lies.

use std::net::SocketAddrV4;

use crate::wire::tracker::PeerRecord;

/// Words of a record.
pub(super) const RECORD_WORDS: usize = 2;
/// Records of a chunk. Peers of a file that lie together cost one page fault together, which is most of what a list
/// costs a child that was just forked; files with few peers waste the rest of a chunk.
pub(super) const CHUNK_RECORDS: u32 = 7;
/// Set in the first word of a record that is in use; the address lies above.
const USED: u64 = 1;

/// One of the lists of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct List {
    /// The file's entry.
    pub file: u32,
    /// Which of them.
    pub class: Class,
}

/// The class of a peer: those of a lower one are named first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// The operator vouches for it.
    Good = 0,
    /// It registered itself, from its own address.
    Own = 1,
    /// Somebody else registered it, or there are many others of its address or network: the first to be dropped.
    Last = 2,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Good, Self::Own, Self::Last];

    fn from_number(number: u64) -> Self {
        match number & 3 {
            0 => Self::Good,
            1 => Self::Own,
            _ => Self::Last,
        }
    }
}

/// What a chunk is: the part of a list with this number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub list: List,
    pub number: u32,
}

impl Part {
    /// Another number for each part.
    pub fn word(self) -> u64 {
        u64::from(self.list.file) << 34 | (self.list.class as u64) << 32 | u64::from(self.number)
    }

    pub fn from_word(word: u64) -> Self {
        Self {
            list: List {
                file: (word >> 34) as u32,
                class: Class::from_number(word >> 32),
            },
            number: word as u32,
        }
    }
}

/// A record in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub peer: SocketAddrV4,
    /// Seconds since the Unix epoch.
    pub last_seen: u32,
    /// The entry of the source that pays for it.
    pub source: u32,
}

impl Record {
    /// What is stored; never all zeros.
    pub fn words(&self) -> [u64; RECORD_WORDS] {
        [
            address_word(self.peer) << 16 | USED,
            u64::from(self.last_seen) << 32 | u64::from(self.source),
        ]
    }

    /// What was stored, if that is a record in use.
    pub fn from_words([address, seen]: [u64; RECORD_WORDS]) -> Option<Self> {
        (address & USED != 0).then(|| Self {
            peer: SocketAddrV4::new(((address >> 32) as u32).into(), (address >> 16) as u16),
            last_seen: (seen >> 32) as u32,
            source: seen as u32,
        })
    }

    /// What clients see of it.
    pub fn shown(&self, list: List) -> PeerRecord {
        PeerRecord {
            address: self.peer,
            last_seen: self.last_seen,
            good: list.class == Class::Good,
        }
    }
}

/// Another number for each address: its 48 bits.
pub(super) fn address_word(peer: SocketAddrV4) -> u64 {
    u64::from(peer.ip().to_bits()) << 16 | u64::from(peer.port())
}
