//! The cascade file: what `NAME.cascade` says of `NAME`, and where its blocks lie.
//!
//! PROTOCOL §1. Nothing here believes a length before it was compared with the bytes that are there.
//!
//! ```
//! use cascade::cascade_file::{CascadeFile, Geometry};
//! use cascade::hash::{BlockHash, FileHash};
//!
//! // Ten bytes in blocks of four: the last block has two.
//! let data = b"0123456789";
//! let geometry = Geometry::new(10, 4)?;
//! assert_eq!(geometry.blocks(), 3);
//! assert_eq!(geometry.range(2), Some(8..10));
//!
//! let hashes = data.chunks(4).map(BlockHash::of).collect();
//! let file = CascadeFile::new(geometry, FileHash::of(data), hashes);
//! let bytes = file.encode();
//! assert_eq!(CascadeFile::parse(&bytes)?, file);
//! // A byte is missing, and it is said before anything is done with the rest.
//! assert!(CascadeFile::parse(&bytes[1..]).is_err());
//! # Ok::<(), cascade::cascade_file::FormatError>(())
//! ```

mod geometry;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::hash::{BlockHash, CascadeHash, FileHash, HASH_LEN};
pub use geometry::{Geometry, default_block_size};

/// The first eight bytes of every cascade file.
pub const MAGIC: [u8; 8] = *b"CASCADE1";
/// Bytes before the first block hash.
pub const HEADER_LEN: usize = 64;
/// The most that is read of a cascade file that comes through a pipe.
const LARGEST_STREAM: u64 = 1 << 30;

/// Why bytes are not a cascade file.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// Shorter than a header.
    #[error("not a cascade file: it has {0} bytes, the header alone has 64")]
    TooShort(u64),
    /// The first eight bytes are others.
    #[error("not a cascade file: it does not begin with CASCADE1")]
    Magic,
    /// The block size is 0.
    #[error("invalid cascade file: its block size is 0")]
    ZeroBlockSize,
    /// More blocks than this program can count.
    #[error("invalid cascade file: it would describe {0} blocks, at most {max} are possible", max = u32::MAX)]
    TooManyBlocks(u64),
    /// The size of the cascade file and the number of blocks disagree.
    #[error("invalid cascade file: {blocks} blocks need {need} bytes of hashes, it has {have}")]
    HashCount {
        /// Blocks, by length and block size.
        blocks: u64,
        /// Bytes of hashes that they need.
        need: u64,
        /// Bytes that follow the header.
        have: u64,
    },
}

/// Why a cascade file could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What was read is no cascade file.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// A cascade file in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CascadeFile {
    reserved: [u8; 8],
    geometry: Geometry,
    file_hash: FileHash,
    block_hashes: Vec<BlockHash>,
}

impl CascadeFile {
    /// Describes a file of this geometry and these hashes.
    ///
    /// # Panics
    /// If the number of hashes is not the geometry's number of blocks.
    pub fn new(geometry: Geometry, file_hash: FileHash, block_hashes: Vec<BlockHash>) -> Self {
        assert_eq!(
            block_hashes.len(),
            geometry.blocks() as usize,
            "one hash per block"
        );
        Self {
            reserved: [0; 8],
            geometry,
            file_hash,
            block_hashes,
        }
    }

    /// Reads a cascade file from all of its bytes.
    ///
    /// # Errors
    /// Whatever PROTOCOL §1 calls invalid.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let (header, hashes) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(FormatError::TooShort(bytes.len() as u64))?;
        let header = Header::parse(header, bytes.len() as u64)?;
        let block_hashes = hashes
            .as_chunks::<HASH_LEN>()
            .0
            .iter()
            .map(|hash| BlockHash(*hash))
            .collect();
        Ok(Self {
            reserved: header.reserved,
            geometry: header.geometry,
            file_hash: header.file_hash,
            block_hashes,
        })
    }

    /// Reads the cascade file at `path`.
    ///
    /// # Errors
    /// Where the file cannot be read, or is no cascade file.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        Self::read_open(&File::open(path)?)
    }

    /// Reads an open cascade file from its beginning, wherever its descriptor's offset stands. The size of a regular
    /// file is compared with its header before the rest is read; of anything else a sane size is read.
    ///
    /// # Errors
    /// As [`CascadeFile::read`].
    pub fn read_open(file: &File) -> Result<Self, ReadError> {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
        }
        if !metadata.is_file() {
            let mut bytes = Vec::new();
            file.take(LARGEST_STREAM).read_to_end(&mut bytes)?;
            return Ok(Self::parse(&bytes)?);
        }
        if metadata.len() < HEADER_LEN as u64 {
            return Err(FormatError::TooShort(metadata.len()).into());
        }
        let mut header = [0; HEADER_LEN];
        file.read_exact_at(&mut header, 0)?;
        Header::parse(&header, metadata.len())?;
        let mut bytes = vec![0; metadata.len() as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self::parse(&bytes)?)
    }

    /// The bytes of the cascade file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.block_hashes.len() * HASH_LEN);
        bytes.extend_from_slice(&self.header());
        for hash in &self.block_hashes {
            bytes.extend_from_slice(&hash.0);
        }
        bytes
    }

    fn header(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[0..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&self.reserved);
        header[16..24].copy_from_slice(&self.geometry.length().to_be_bytes());
        header[24..32].copy_from_slice(&self.geometry.block_size().to_be_bytes());
        header[32..64].copy_from_slice(&self.file_hash.0);
        header
    }

    /// The cascade hash: the SHA-256 of the cascade file's bytes.
    pub fn hash(&self) -> CascadeHash {
        let mut hasher = Sha256::new();
        hasher.update(self.header());
        for hash in &self.block_hashes {
            hasher.update(hash.0);
        }
        CascadeHash::finish(hasher)
    }

    /// Where the blocks lie.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The SHA-256 of the whole data file.
    pub fn file_hash(&self) -> FileHash {
        self.file_hash
    }

    /// The SHA-256 of each block, in order.
    pub fn block_hashes(&self) -> &[BlockHash] {
        &self.block_hashes
    }
}

/// The checked first 64 bytes of a cascade file.
struct Header {
    reserved: [u8; 8],
    geometry: Geometry,
    file_hash: FileHash,
}

impl Header {
    /// Checks the header of a cascade file that has `total` bytes in all.
    fn parse(header: &[u8; HEADER_LEN], total: u64) -> Result<Self, FormatError> {
        let field = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            bytes
        };
        if field(0) != MAGIC {
            return Err(FormatError::Magic);
        }
        let geometry = Geometry::new(u64::from_be_bytes(field(16)), u64::from_be_bytes(field(24)))?;
        let blocks = u64::from(geometry.blocks());
        let (need, have) = (blocks * HASH_LEN as u64, total - HEADER_LEN as u64);
        if need != have {
            return Err(FormatError::HashCount { blocks, need, have });
        }
        let mut file_hash = [0; HASH_LEN];
        file_hash.copy_from_slice(&header[32..64]);
        Ok(Self {
            reserved: field(8),
            geometry,
            file_hash: FileHash(file_hash),
        })
    }
}

#[cfg(test)]
mod tests;
