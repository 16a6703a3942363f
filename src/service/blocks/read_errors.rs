//! Read errors of the files that are served: the processes that serve them note them in shared memory, and their
//! supervisor takes them out, says what is wrong, and sees to it that the blocks are not served any more.
//!
//! Whoever serves strangers writes there, so that nothing more is believed of it than that a block should be looked at.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::shared::Shared;

/// How many are kept until they are taken; further ones will come again.
const SLOTS: usize = 64;
/// An error is a word: a flag that tells it from nothing, and these parts.
const TAKEN: u64 = 1 << 63;
const ID_BITS: u32 = 23;
const ERRNO_BITS: u32 = 8;

/// A block that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadError {
    /// The last 23 bits of the file's id.
    pub id: u64,
    /// The block.
    pub block: u32,
    /// Why; 0 where the file ended.
    pub errno: i32,
}

/// The errors that were noted.
#[derive(Debug)]
pub struct ReadErrors {
    slots: Shared<AtomicU64>,
}

impl ReadErrors {
    /// None so far.
    ///
    /// # Errors
    /// Where the memory cannot be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            slots: Shared::new(SLOTS)?,
        })
    }

    /// Takes note of an error, where there is room and it is not there yet.
    pub fn note(&self, error: ReadError) {
        let word = error.word();
        for slot in &*self.slots {
            let empty = slot.compare_exchange(0, word, Ordering::Relaxed, Ordering::Relaxed);
            if empty.is_ok() || empty == Err(word) {
                return;
            }
        }
    }

    /// Takes out what was noted.
    pub fn take(&self) -> Vec<ReadError> {
        let words = self
            .slots
            .iter()
            .map(|slot| slot.swap(0, Ordering::Relaxed));
        words.filter_map(ReadError::from_word).collect()
    }
}

impl ReadError {
    /// Whether it is about a file with this id.
    pub fn is_of(&self, id: u64) -> bool {
        self.id == id & ((1 << ID_BITS) - 1)
    }

    fn word(self) -> u64 {
        let id = self.id & ((1 << ID_BITS) - 1);
        let errno = self.errno as u64 & ((1 << ERRNO_BITS) - 1);
        TAKEN | id << (32 + ERRNO_BITS) | errno << 32 | u64::from(self.block)
    }

    fn from_word(word: u64) -> Option<Self> {
        (word & TAKEN != 0).then_some(Self {
            id: word >> (32 + ERRNO_BITS) & ((1 << ID_BITS) - 1),
            block: word as u32,
            errno: (word >> 32 & ((1 << ERRNO_BITS) - 1)) as i32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_arrive_once_and_a_flood_of_them_does_no_harm() {
        let errors = ReadErrors::new().expect("memory");
        let error = |block| ReadError {
            id: 7,
            block,
            errno: libc::EIO,
        };
        for _ in 0..3 {
            errors.note(error(u32::MAX));
            errors.note(error(0));
        }
        assert_eq!(errors.take(), [error(u32::MAX), error(0)]);
        assert_eq!(errors.take(), []);
        (0..1000).for_each(|block| errors.note(error(block)));
        assert_eq!(errors.take().len(), SLOTS);
        assert!(error(0).is_of(7) && error(0).is_of(7 + (1 << 23)) && !error(0).is_of(8));
    }
}
