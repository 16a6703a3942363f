//! Into which blocks a data file is divided.

use std::ops::Range;

use super::FormatError;

/// Length and block size of a data file, and the block arithmetic that follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    length: u64,
    block_size: u64,
}

impl Geometry {
    /// Describes a file of `length` bytes in blocks of `block_size` bytes.
    ///
    /// # Errors
    /// Where the block size is 0 or there would be more than `u32::MAX` blocks.
    pub fn new(length: u64, block_size: u64) -> Result<Self, FormatError> {
        if block_size == 0 {
            return Err(FormatError::ZeroBlockSize);
        }
        let blocks = length.div_ceil(block_size);
        if blocks > u64::from(u32::MAX) {
            return Err(FormatError::TooManyBlocks(blocks));
        }
        Ok(Self { length, block_size })
    }

    /// Bytes of the data file.
    pub fn length(self) -> u64 {
        self.length
    }

    /// Bytes of so many blocks, at most those of the data file.
    pub fn bytes_of(self, blocks: u32) -> u64 {
        let bytes = u64::from(blocks).saturating_mul(self.block_size);
        bytes.min(self.length)
    }

    /// Bytes of every block but the last.
    pub fn block_size(self) -> u64 {
        self.block_size
    }

    /// The number of blocks.
    pub fn blocks(self) -> u32 {
        // The constructor refused what does not fit.
        self.length.div_ceil(self.block_size) as u32
    }

    /// The bytes of the data file that block `block` covers, or nothing where there is no such block.
    pub fn range(self, block: u32) -> Option<Range<u64>> {
        if block >= self.blocks() {
            return None;
        }
        let start = u64::from(block) * self.block_size;
        Some(start..start.saturating_add(self.block_size).min(self.length))
    }

    /// The length of block `block`; 0 where there is no such block.
    pub fn block_length(self, block: u32) -> u64 {
        self.range(block).map_or(0, |range| range.end - range.start)
    }
}

/// The block size that `create` takes where none is asked for: the smallest power of two from 64 KiB to 4 MiB that
/// gives at most 1024 blocks, else 4 MiB.
pub fn default_block_size(length: u64) -> u64 {
    const SMALLEST: u64 = 64 << 10;
    const LARGEST: u64 = 4 << 20;
    let mut size = SMALLEST;
    while size < LARGEST && length.div_ceil(size) > 1024 {
        size *= 2;
    }
    size
}
