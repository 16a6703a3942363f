//! Where blocks land before they are in the file: a buffer with the block that is coming in, and before it verified
//! blocks that wait to be written together.
//!
//! A small block costs less to receive and to hash than a system call does. So small blocks that follow each other in
//! the file are written with one pwrite(2), and reported together. Nobody waits for that: whoever is about to wait for
//! a peer writes and reports first.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::plan::Failure;
use super::reason::{Reason, ReasonKind};
use super::report::{GiveUp, MAX_FETCHED};
use crate::cascade_file::CascadeFile;
use crate::hash::BlockHash;

/// The most of a block that is held in memory.
pub const PIECE: usize = 1 << 20;
/// Blocks up to this size are received, written and reported together.
pub const SMALL: u64 = 32 << 10;
/// The most bytes that are written together.
const TOGETHER: usize = 256 << 10;

/// The buffer, and the file behind it.
#[derive(Debug)]
pub struct Landing<'a> {
    cascade: &'a CascadeFile,
    data: &'a File,
    buffer: Vec<u8>,
    /// The part of the buffer with verified blocks that are not written. The block that is coming in begins at its end.
    held: Range<usize>,
    /// Where in the file that part begins.
    offset: u64,
    /// Blocks that are verified; all are written but those that are held.
    verified: Vec<u32>,
}

/// A block that is coming in.
#[derive(Debug)]
pub struct Block {
    /// Its number.
    pub number: u32,
    length: u64,
    /// Bytes that were received.
    received: u64,
    /// Bytes of these that are in the buffer, not in the file.
    buffered: usize,
    hasher: Sha256,
}

impl<'a> Landing<'a> {
    /// Nothing has come in for this file yet.
    pub fn new(cascade: &'a CascadeFile, data: &'a File) -> Self {
        Self {
            cascade,
            data,
            buffer: Vec::new(),
            held: 0..0,
            offset: 0,
            verified: Vec::new(),
        }
    }

    /// Whether the file's blocks are small enough to be received together.
    pub fn is_of_small_blocks(&self) -> bool {
        self.cascade.geometry().block_size() <= SMALL
    }

    /// A block begins, of the length that it should have.
    ///
    /// # Errors
    /// Where what is held must be written first, and cannot be.
    pub fn begin(&mut self, number: u32, length: u64) -> Result<Block, GiveUp> {
        let start = self.start_of(number);
        let room = length.min(PIECE as u64) as usize;
        let follows = start == self.offset + self.held.len() as u64;
        if !follows || self.held.end + room > TOGETHER {
            self.write_held()?;
            (self.held, self.offset) = (0..0, start);
        }
        if self.buffer.len() < self.held.end + room {
            self.buffer.resize(self.held.end + room, 0);
        }
        Ok(Block {
            number,
            length,
            received: 0,
            buffered: 0,
            hasher: Sha256::new(),
        })
    }

    /// The room for what comes in next of a block.
    pub fn room(&mut self, block: &Block) -> &mut [u8] {
        let left = (block.length - block.received).min((PIECE - block.buffered) as u64);
        let from = self.held.end + block.buffered;
        &mut self.buffer[from..from + left as usize]
    }

    /// So many bytes have come into that room.
    ///
    /// # Errors
    /// Where a long block cannot be written.
    pub fn received(&mut self, block: &mut Block, bytes: usize) -> Result<(), GiveUp> {
        let from = self.held.end + block.buffered;
        block.hasher.update(&self.buffer[from..from + bytes]);
        block.buffered += bytes;
        block.received += bytes as u64;
        if block.buffered == PIECE && block.length > PIECE as u64 {
            self.write(block)?;
        }
        Ok(())
    }

    /// Takes a block over that is there as a whole, if it is right; otherwise answers what it is instead.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn land(&mut self, block: &mut Block) -> Result<Result<(), BlockHash>, GiveUp> {
        let hash = BlockHash::finish(std::mem::take(&mut block.hasher));
        if self.cascade.block_hashes().get(block.number as usize) != Some(&hash) {
            return Ok(Err(hash));
        }
        if block.length <= SMALL {
            self.held.end += block.buffered;
        } else {
            self.write(block)?;
        }
        self.verified.push(block.number);
        Ok(Ok(()))
    }

    /// Whether so much has landed that it should be reported, though so many more blocks are to come.
    pub fn is_due(&self, coming: usize) -> bool {
        let landed = self.verified.len();
        landed > 0 && (self.held.is_empty() || landed >= MAX_FETCHED || landed > coming)
    }

    /// Writes what is held; the blocks that have landed since this was asked last are in the file then.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn take_landed(&mut self) -> Result<Vec<u32>, GiveUp> {
        self.write_held()?;
        Ok(std::mem::take(&mut self.verified))
    }

    fn start_of(&self, block: u32) -> u64 {
        u64::from(block) * self.cascade.geometry().block_size()
    }

    fn write_held(&mut self) -> Result<(), GiveUp> {
        let Some(number) = self.verified.last().filter(|_| !self.held.is_empty()) else {
            return Ok(());
        };
        self.write_at(*number, self.held.clone(), self.offset)?;
        // A block may be coming in, which stays where it is.
        self.offset += self.held.len() as u64;
        self.held.start = self.held.end;
        Ok(())
    }

    /// Writes what is in the buffer of a block that is not held.
    fn write(&mut self, block: &mut Block) -> Result<(), GiveUp> {
        let offset = self.start_of(block.number) + block.received - block.buffered as u64;
        let range = self.held.end..self.held.end + std::mem::take(&mut block.buffered);
        self.write_at(block.number, range, offset)
    }

    fn write_at(&self, number: u32, range: Range<usize>, offset: u64) -> Result<(), GiveUp> {
        let written = self.data.write_all_at(&self.buffer[range], offset);
        written.map_err(|error| {
            let code = error.raw_os_error().unwrap_or(0);
            GiveUp(
                Failure::Ours,
                Reason {
                    kind: ReasonKind::CannotWrite,
                    number,
                    code,
                },
            )
        })
    }
}

impl Block {
    /// Whether all of it has come in.
    pub fn is_whole(&self) -> bool {
        self.received == self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cascade_file::Geometry;
    use crate::hash::FileHash;

    const SIZE: u64 = 1000;

    fn content(blocks: u64) -> Vec<u8> {
        (0..blocks * SIZE - 1)
            .map(|at| ((at * at) >> 3) as u8)
            .collect()
    }

    fn described(content: &[u8]) -> CascadeFile {
        let geometry = Geometry::new(content.len() as u64, SIZE).expect("valid");
        let blocks = content.chunks(SIZE as usize).map(BlockHash::of);
        CascadeFile::new(geometry, FileHash::of(content), blocks.collect())
    }

    /// A part of the block's bytes comes in.
    fn some(landing: &mut Landing<'_>, block: &mut Block, content: &[u8], most: usize) {
        let start = u64::from(block.number) * SIZE + block.received;
        let room = landing.room(block);
        let n = room.len().min(most);
        room[..n].copy_from_slice(&content[start as usize..start as usize + n]);
        landing.received(block, n).expect("written");
    }

    #[test]
    fn blocks_are_in_the_file_wherever_they_are_asked_for_while_others_come_in() {
        let content = content(9);
        let cascade = described(&content);
        let data = tempfile::tempfile().expect("a file");
        let mut landing = Landing::new(&cascade, &data);
        let mut landed = Vec::new();
        for number in [3, 4, 5, 8, 0, 1, 2, 6, 7] {
            let length = cascade.geometry().block_length(number);
            let mut block = landing.begin(number, length).expect("written");
            some(&mut landing, &mut block, &content, 400);
            if number % 2 == 0 {
                for block in landing.take_landed().expect("written") {
                    let at = usize::try_from(u64::from(block) * SIZE).expect("small");
                    let mut there = vec![0; cascade.geometry().block_length(block) as usize];
                    data.read_exact_at(&mut there, at as u64)
                        .expect("it is there");
                    assert!(there == content[at..at + there.len()], "block {block}");
                    landed.push(block);
                }
            }
            some(&mut landing, &mut block, &content, usize::MAX);
            assert!(block.is_whole());
            assert_eq!(landing.land(&mut block).expect("written"), Ok(()));
        }
        landed.extend(landing.take_landed().expect("written"));
        assert_eq!(landed, [3, 4, 5, 8, 0, 1, 2, 6, 7]);
        let mut all = vec![0; content.len()];
        data.read_exact_at(&mut all, 0).expect("it is there");
        assert!(all == content);
    }

    #[test]
    fn a_wrong_block_neither_lands_nor_harms_those_before_it() {
        let content = content(3);
        let cascade = described(&content);
        let data = tempfile::tempfile().expect("a file");
        let mut landing = Landing::new(&cascade, &data);
        for (number, right) in [(0, true), (1, false), (1, true)] {
            let mut block = landing.begin(number, SIZE).expect("written");
            some(&mut landing, &mut block, &content, usize::MAX);
            if !right {
                block.hasher.update(b"x");
            }
            let result = landing.land(&mut block).expect("written");
            assert_eq!(result.is_ok(), right);
        }
        assert_eq!(landing.take_landed().expect("written"), [0, 1]);
        let mut all = vec![0; 2 * SIZE as usize];
        data.read_exact_at(&mut all, 0).expect("it is there");
        assert!(all == content[..2 * SIZE as usize]);
    }
}
