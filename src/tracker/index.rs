//! A hash table of small numbers in shared memory: open addressing with linear probing.
//!
//! The table holds ids; what an id stands for, and so its hash, lies elsewhere. Removing an entry shifts later ones
//! back, so that no tombstones accumulate. Every loop is bounded by the table's length: a reader that looks while the
//! owner writes may find garbage (which the sequence lock reveals), but it terminates.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::sys::shared::Shared;

/// An empty cell; others hold an id plus one.
const EMPTY: u32 = 0;

/// A set of ids, found by hash.
#[derive(Debug)]
pub(super) struct Index {
    cells: Shared<AtomicU32>,
}

impl Index {
    /// Room for `entries` ids, at a load factor of two thirds at most.
    ///
    /// # Errors
    /// Where the memory cannot be mapped.
    pub fn new(entries: u32) -> io::Result<Self> {
        let entries = entries as usize;
        Ok(Self {
            cells: Shared::guarded(entries + entries / 2 + 2)?,
        })
    }

    /// Bytes of memory, once every page was touched.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.cells.len() * size_of::<AtomicU32>()
    }

    /// Finds the id with this hash for which `is_it` returns true.
    pub fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.probe(hash, is_it).map(|(_, id)| id)
    }

    /// Adds an id that is not there. The owner never adds more than there is room for.
    pub fn insert(&self, hash: u64, id: u32) {
        let mut at = self.home(hash);
        for _ in 0..self.cells.len() {
            if self.get(at) == EMPTY {
                self.set(at, id + 1);
                return;
            }
            at = self.after(at);
        }
        debug_assert!(false, "the index has room for every id");
    }

    /// Removes an id. `hash_of` returns the hashes of the remaining ones.
    pub fn remove(&self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        let Some((mut hole, _)) = self.probe(hash, |other| other == id) else {
            debug_assert!(false, "only what is there is removed");
            return;
        };
        let mut at = hole;
        for _ in 0..self.cells.len() {
            at = self.after(at);
            let cell = self.get(at);
            if cell == EMPTY {
                break;
            }
            // An entry may move back as far as its home, not past it.
            let home = self.home(hash_of(cell - 1));
            if self.distance(home, at) >= self.distance(hole, at) {
                self.set(hole, cell);
                hole = at;
            }
        }
        self.set(hole, EMPTY);
    }

    fn probe(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<(usize, u32)> {
        let mut at = self.home(hash);
        for _ in 0..self.cells.len() {
            match self.get(at) {
                EMPTY => return None,
                cell if is_it(cell - 1) => return Some((at, cell - 1)),
                _ => at = self.after(at),
            }
        }
        None
    }

    /// Where an entry of this hash belongs: the hash, scaled from 64 bits to the table's length.
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.cells.len() as u128) >> 64) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.cells.len() {
            0
        } else {
            at + 1
        }
    }

    /// Steps from one cell forward to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from {
            to - from
        } else {
            to + self.cells.len() - from
        }
    }

    fn get(&self, at: usize) -> u32 {
        self.cells[at].load(Relaxed)
    }

    fn set(&self, at: usize, cell: u32) {
        self.cells.writing()[at].store(cell, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Few different hashes, at the end of the table, so that entries collide and wrap around.
        #[test]
        fn it_holds_what_a_set_holds(steps in proptest::collection::vec((any::<bool>(), 0u32..20), 0..200), spread in 1u64..8) {
            let index = Index::new(20).expect("memory");
            let hash_of = |id: u32| u64::MAX - (u64::from(id) % spread) * (u64::MAX / 16);
            let mut model = BTreeSet::new();
            for (insert, id) in steps {
                match (insert, model.contains(&id)) {
                    (true, false) => { index.insert(hash_of(id), id); model.insert(id); }
                    (false, true) => { index.remove(hash_of(id), id, hash_of); model.remove(&id); }
                    _ => {}
                }
                for id in 0..20 {
                    let found = index.find(hash_of(id), |other| other == id);
                    prop_assert_eq!(found, model.contains(&id).then_some(id));
                }
            }
        }
    }
}
