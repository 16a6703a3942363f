//! Which blocks are present: a set of block numbers in shared memory.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::shared::Shared;

const WORD: u32 = u64::BITS;

/// A set of block numbers below a bound, in memory that is shared with later children.
///
/// One process adds to it (the one that verifies or downloads), all others look. Block 0 is the most significant bit
/// of the first word, so that the words in big-endian order are the map of PROTOCOL §5.
#[derive(Debug)]
pub struct Bitmap {
    words: Shared<AtomicU64>,
    blocks: u32,
}

impl Bitmap {
    /// The empty set, for numbers below `blocks`.
    ///
    /// # Errors
    /// Where the memory cannot be had.
    pub fn new(blocks: u32) -> io::Result<Self> {
        Ok(Self {
            words: Shared::new(blocks.div_ceil(WORD) as usize)?,
            blocks,
        })
    }

    /// As [`Bitmap::new`], in memory that can be handed to processes that were forked before.
    ///
    /// # Errors
    /// As [`Bitmap::new`].
    pub fn passable(blocks: u32) -> io::Result<Self> {
        let words = Shared::passable(blocks.div_ceil(WORD) as usize)?;
        Ok(Self { words, blocks })
    }

    /// A set that another process handed over, to be looked at only.
    ///
    /// # Errors
    /// Where it is none for numbers below `blocks`.
    pub fn passed(fd: OwnedFd, blocks: u32) -> io::Result<Self> {
        let words = Shared::passed(fd, blocks.div_ceil(WORD) as usize)?;
        Ok(Self { words, blocks })
    }

    /// What is handed over for [`Bitmap::passed`]; nothing where that is not possible.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.words.descriptor()
    }

    /// The bound: how many blocks there are.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    fn place(&self, block: u32) -> Option<(&AtomicU64, u64)> {
        let word = self
            .words
            .get((block / WORD) as usize)
            .filter(|_| block < self.blocks)?;
        Some((word, 1 << (WORD - 1 - block % WORD)))
    }

    /// Adds a block; numbers beyond the bound are ignored. What was written before is seen by whoever sees the bit.
    pub fn set(&self, block: u32) {
        if let Some((word, bit)) = self.place(block) {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    /// Takes a block out.
    pub fn unset(&self, block: u32) {
        if let Some((word, bit)) = self.place(block) {
            word.fetch_and(!bit, Ordering::Release);
        }
    }

    /// Takes all blocks out.
    pub fn clear_all(&self) {
        self.words
            .iter()
            .for_each(|word| word.store(0, Ordering::Release));
    }

    /// Whether a block is in the set.
    pub fn get(&self, block: u32) -> bool {
        self.place(block)
            .is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// From now on this process and its children only look.
    ///
    /// # Errors
    /// As mprotect(2).
    pub fn protect(&self) -> io::Result<()> {
        self.words.protect()
    }

    /// How many blocks are in the set.
    pub fn count(&self) -> u32 {
        self.words
            .iter()
            .map(|word| word.load(Ordering::Acquire).count_ones())
            .sum()
    }

    /// Whether every block is in the set.
    pub fn is_full(&self) -> bool {
        let whole = (self.blocks / WORD) as usize;
        self.words[..whole]
            .iter()
            .all(|word| word.load(Ordering::Acquire) == u64::MAX)
            && (whole as u32 * WORD..self.blocks).all(|block| self.get(block))
    }

    /// The map of PROTOCOL §5: ceil(blocks / 8) bytes, block 0 in the most significant bit of the first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.load(Ordering::Acquire).to_be_bytes())
            .collect();
        bytes.truncate(self.map_length());
        bytes
    }

    /// Bytes of the map.
    pub fn map_length(&self) -> usize {
        self.blocks.div_ceil(8) as usize
    }

    /// Makes the set what a map says; an empty map means that every block is in it. Spare bits are ignored.
    /// Answers false, and changes nothing, where the map has another length.
    pub fn assign(&self, map: &[u8]) -> bool {
        if map.is_empty() {
            (0..self.blocks).for_each(|block| self.set(block));
            return true;
        }
        if map.len() != self.map_length() {
            return false;
        }
        for (index, word) in self.words.iter().enumerate() {
            let bytes = &map[index * 8..map.len().min(index * 8 + 8)];
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            let spare = (index as u32 + 1) * WORD;
            let mask = if spare > self.blocks {
                u64::MAX << (spare - self.blocks)
            } else {
                u64::MAX
            };
            word.store(u64::from_be_bytes(padded) & mask, Ordering::Release);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_map_is_laid_out_as_the_protocol_says() {
        let map = Bitmap::new(11).expect("memory");
        map.set(0);
        map.set(9);
        map.set(11);
        assert_eq!(map.to_bytes(), [0b1000_0000, 0b0100_0000]);
        assert_eq!(map.count(), 2);
        assert!(!map.is_full());
        assert!(map.assign(&[]));
        assert!(map.is_full());
        assert_eq!(map.count(), 11);
        assert!(Bitmap::new(0).expect("memory").is_full());
    }

    #[test]
    fn a_map_of_another_length_changes_nothing() {
        let map = Bitmap::new(64).expect("memory");
        assert!(!map.assign(&[0xff; 9]));
        assert_eq!(map.count(), 0);
    }

    proptest! {
        #[test]
        fn a_map_reads_back_without_its_spare_bits(blocks in 1u32..300, bytes: [u8; 38]) {
            let map = Bitmap::new(blocks).expect("memory");
            prop_assert!(map.assign(&bytes[..map.map_length()]));
            for block in 0..blocks {
                let bit = bytes[block as usize / 8] >> (7 - block % 8) & 1;
                prop_assert_eq!(map.get(block), bit == 1);
            }
            prop_assert_eq!(map.count() as usize, (0..blocks).filter(|block| map.get(*block)).count());
            let copy = Bitmap::new(blocks).expect("memory");
            prop_assert!(copy.assign(&map.to_bytes()));
            prop_assert_eq!(copy.to_bytes(), map.to_bytes());
        }
    }
}
