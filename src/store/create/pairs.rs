//! The hashes of the blocks, of two blocks at once where that is possible.
//!
//! Two hashes that are computed in turns take less time than one after the other ([`update_both`]). So the file is
//! divided into units, each of one block or of as many small ones as fit into a piece, and a unit is hashed together
//! with the one that follows it, piece by piece. Blocks of which two would take too much memory are hashed alone.

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::cascade_file::Geometry;
use crate::hash::{BlockHash, update_both};
use crate::store::pieces::PIECE;

/// The largest blocks that are hashed two at once.
const PAIRED: u64 = 4 << 20;

/// How a file is divided into pieces, and which of them are hashed together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Division {
    length: u64,
    /// Bytes of a unit.
    unit: u64,
    /// Pieces of a unit; only the last may be shorter than [`PIECE`].
    parts: u64,
    /// Units that are hashed together.
    together: u64,
}

impl Division {
    pub(super) fn new(geometry: Geometry) -> Self {
        let block = geometry.block_size();
        let unit = block * (PIECE as u64 / block).max(1);
        Self {
            length: geometry.length(),
            unit,
            parts: unit.div_ceil(PIECE as u64),
            together: if block <= PAIRED { 2 } else { 1 },
        }
    }

    /// Pieces of the whole file.
    pub(super) fn pieces(&self) -> u64 {
        let rest = (self.length % self.unit).div_ceil(PIECE as u64);
        self.length / self.unit * self.parts + rest
    }

    /// The bytes of a piece.
    pub(super) fn range(&self, piece: u64) -> Range<u64> {
        let unit = piece / self.parts * self.unit;
        let start = unit + piece % self.parts * PIECE as u64;
        let end = (start.saturating_add(PIECE as u64)).min(unit.saturating_add(self.unit));
        start..end.min(self.length)
    }

    /// So many tasks it takes to hash the blocks.
    pub(super) fn tasks(&self) -> u64 {
        let (pairs, rest) = self.in_pairs(self.pieces());
        pairs * self.parts + rest.min(self.parts)
    }

    /// The pieces of a task: one, and the one that is hashed with it, if there is one.
    pub(super) fn task(&self, task: u64) -> (u64, Option<u64>) {
        let first = self.done_after(task);
        let second = Some(first + self.parts).filter(|second| *second < self.pieces());
        (first, second.filter(|_| self.together == 2))
    }

    /// After so many tasks no piece before this one is wanted any more.
    pub(super) fn done_after(&self, tasks: u64) -> u64 {
        if tasks == self.tasks() {
            return self.pieces();
        }
        tasks / self.parts * self.parts * self.together + tasks % self.parts
    }

    /// How many pieces are worth being in memory: those of the units that are hashed together and of as many that will
    /// be next, and enough for everybody to have something to do.
    pub(super) fn window(&self) -> u64 {
        const LEAST: u64 = 16;
        match self.together {
            2 => (4 * self.parts).max(LEAST),
            _ => LEAST,
        }
    }

    fn in_pairs(&self, pieces: u64) -> (u64, u64) {
        let pair = self.parts * self.together;
        (pieces / pair, pieces % pair)
    }
}

/// The hashes of the blocks, in order.
pub(super) struct BlockHasher {
    block_size: u64,
    first: Unit,
    second: Unit,
    hashes: Vec<BlockHash>,
}

/// One of two units that are hashed together.
struct Unit {
    /// Bytes that the block lacks that has begun.
    lacks: u64,
    begun: Sha256,
    done: Vec<BlockHash>,
}

impl BlockHasher {
    /// `hashes` has room for all.
    pub(super) fn new(geometry: Geometry, hashes: Vec<BlockHash>) -> Self {
        let unit = || Unit {
            lacks: geometry.block_size(),
            begun: Sha256::new(),
            done: Vec::new(),
        };
        Self {
            block_size: geometry.block_size(),
            first: unit(),
            second: unit(),
            hashes,
        }
    }

    /// Takes the next piece of one unit, and that of the unit after it, which is at most as long.
    pub(super) fn update(&mut self, first: &[u8], second: &[u8]) {
        let size = self.block_size.min(PIECE as u64) as usize;
        let mut others = second.chunks(size);
        for these in first.chunks(size) {
            let those = others.next().unwrap_or_default();
            update_both(
                (&mut self.first.begun, these),
                (&mut self.second.begun, those),
            );
            self.first.updated(these.len(), self.block_size);
            self.second.updated(those.len(), self.block_size);
        }
        if self.first.lacks == self.block_size {
            self.collect();
        }
    }

    /// Takes over the hashes of two units of which the first is done.
    fn collect(&mut self) {
        self.hashes.append(&mut self.first.done);
        self.hashes.append(&mut self.second.done);
    }

    /// The last block may be shorter than the others.
    pub(super) fn finish(mut self) -> Vec<BlockHash> {
        for unit in [&mut self.first, &mut self.second] {
            if unit.lacks < self.block_size {
                unit.end_block(self.block_size);
            }
        }
        self.collect();
        self.hashes
    }
}

impl Unit {
    fn updated(&mut self, bytes: usize, block_size: u64) {
        self.lacks -= bytes as u64;
        if self.lacks == 0 {
            self.end_block(block_size);
        }
    }

    fn end_block(&mut self, block_size: u64) {
        let begun = std::mem::take(&mut self.begun);
        self.done.push(BlockHash::finish(begun));
        self.lacks = block_size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn division(length: u64, block_size: u64) -> Division {
        Division::new(Geometry::new(length, block_size).expect("valid"))
    }

    fn check(length: u64, block_size: u64) {
        let division = division(length, block_size);
        let mut at = 0;
        for piece in 0..division.pieces() {
            let range = division.range(piece);
            assert_eq!(range.start, at, "pieces follow each other");
            assert!(range.end > at && range.end - at <= PIECE as u64);
            at = range.end;
        }
        assert_eq!(at, length, "pieces are the whole file");
        let mut wanted: Vec<u64> = (0..division.pieces()).rev().collect();
        for task in 0..division.tasks() {
            let (first, second) = division.task(task);
            let most = second.unwrap_or(first);
            assert!(most < division.done_after(task) + division.window());
            let size = |piece| division.range(piece).end - division.range(piece).start;
            assert!(second.is_none_or(|second| size(second) <= size(first)));
            for piece in std::iter::once(first).chain(second) {
                let place = wanted.iter().position(|wanted| *wanted == piece);
                wanted.remove(place.expect("hashed once"));
            }
            let next = wanted.last().copied().unwrap_or(division.pieces());
            assert_eq!(division.done_after(task + 1), next);
        }
        assert!(wanted.is_empty(), "{wanted:?} are not hashed");
    }

    #[test]
    fn one_block_larger_than_any_file_is_one_unit() {
        check(1000, u64::MAX);
        check(0, u64::MAX);
    }

    proptest! {
        #[test]
        fn every_piece_is_hashed_once_and_kept_until_then(
            length in 0u64..64 << 20, block_size in (1024u64..10 << 20),
        ) {
            check(length, block_size);
        }
    }
}
