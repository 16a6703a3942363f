//! How many peers of one address, and of one network, registered themselves for a file.
//!
//! The counters lie in a table by a keyed hash, and nothing says whose each is: two that meet count together, which
//! may put a peer into the last class that belongs into the one before, where it does little harm. In return a million
//! peers need four bytes each.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::sys::shared::Shared;

/// Ports of one address that may register themselves for a file.
pub(super) const PORTS_OF_ADDRESS: u8 = 8;
/// Peers of one network of 256 addresses that may.
pub(super) const PEERS_OF_NETWORK: u8 = 64;
/// Counters for each record that there is room for, so that few meet.
const COUNTERS_OF_RECORD: usize = 2;
/// Counters of 8 bits in a cell.
const COUNTERS_OF_CELL: usize = 4;
/// A counter that has come so far stays there: what met in it cannot be told apart any more.
const STUCK: u8 = u8::MAX;

/// The network of an address that counts as one: a /24.
pub(super) fn network_of(address: Ipv4Addr) -> u32 {
    address.to_bits() >> 8
}

/// Counters, found by a hash.
#[derive(Debug)]
pub(super) struct Counters {
    cells: Shared<AtomicU32>,
}

impl Counters {
    /// Counters for up to `records` records.
    ///
    /// # Errors
    /// Where the memory cannot be mapped.
    pub fn new(records: u32) -> io::Result<Self> {
        let counters = records as usize * COUNTERS_OF_RECORD;
        Ok(Self {
            cells: Shared::guarded(counters.div_ceil(COUNTERS_OF_CELL).max(1))?,
        })
    }

    /// Bytes of memory, once every page was touched.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.cells.len() * size_of::<AtomicU32>()
    }

    /// The cell of a counter, and where in it the counter lies.
    fn place(&self, hash: u64) -> (usize, u32) {
        let counter = (hash % (self.cells.len() * COUNTERS_OF_CELL) as u64) as usize;
        let shift = (counter % COUNTERS_OF_CELL) as u32 * u8::BITS;
        (counter / COUNTERS_OF_CELL, shift)
    }

    pub fn get(&self, hash: u64) -> u8 {
        let (cell, shift) = self.place(hash);
        let cell = self.cells.get(cell).map_or(0, |cell| cell.load(Relaxed));
        (cell >> shift) as u8
    }

    /// One more.
    pub fn increase(&self, hash: u64) {
        self.set(hash, self.get(hash).saturating_add(1));
    }

    /// One less.
    pub fn decrease(&self, hash: u64) {
        match self.get(hash) {
            STUCK => {}
            count => self.set(hash, count.saturating_sub(1)),
        }
    }

    fn set(&self, hash: u64, count: u8) {
        let (cell, shift) = self.place(hash);
        if let Some(cell) = self.cells.writing().get(cell) {
            let others = cell.load(Relaxed) & !(u32::from(u8::MAX) << shift);
            cell.store(others | u32::from(count) << shift, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_count_beside_each_other_and_one_that_is_full_stays_so() {
        let counters = Counters::new(10).expect("memory");
        for hash in 0..20 {
            (0..hash).for_each(|_| counters.increase(hash));
        }
        assert!((0..20).all(|hash| counters.get(hash) == hash as u8));
        counters.decrease(7);
        assert_eq!(
            (counters.get(6), counters.get(7), counters.get(8)),
            (6, 6, 8)
        );
        (0..300).for_each(|_| counters.increase(3));
        counters.decrease(3);
        assert_eq!((counters.get(3), counters.get(2)), (STUCK, 2));
        counters.decrease(0);
        assert_eq!(counters.get(0), 0);
    }
}
