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

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::hash::{BlockHash, CascadeHash, FileHash, HASH_LEN};

/// The first eight bytes of every cascade file.
pub const MAGIC: [u8; 8] = *b"CASCADE1";
/// Bytes before the first block hash.
pub const HEADER_LEN: usize = 64;
/// The most that is read of a cascade file that comes through a pipe.
const LARGEST_STREAM: u64 = 1 << 30;
/// What `create` appends to a data file's name.
pub const EXTENSION: &str = "cascade";

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
        header[16..24].copy_from_slice(&self.geometry.length.to_be_bytes());
        header[24..32].copy_from_slice(&self.geometry.block_size.to_be_bytes());
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

/// The data file that a cascade file describes by its name: beside it, without `.cascade`.
///
/// Nothing where the name does not end so.
pub fn data_path(cascade: &Path) -> Option<PathBuf> {
    let ends_so = cascade
        .extension()
        .is_some_and(|extension| extension == EXTENSION);
    ends_so.then(|| cascade.with_extension(""))
}

/// The cascade file that describes a data file by its name: beside it, with `.cascade`.
pub fn cascade_path(data: &Path) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(".");
    name.push(EXTENSION);
    name.into()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(length: u64, block_size: u64) -> CascadeFile {
        let geometry = Geometry::new(length, block_size).expect("a valid geometry");
        let hashes = (0..geometry.blocks())
            .map(|block| BlockHash::of(&block.to_be_bytes()))
            .collect();
        CascadeFile::new(geometry, FileHash::of(b"data"), hashes)
    }

    #[test]
    fn the_example_of_the_protocol_has_576_bytes() {
        let file = sample(1000, 64);
        assert_eq!(file.geometry().blocks(), 16);
        assert_eq!(file.encode().len(), 576);
        assert_eq!(file.geometry().block_length(15), 40);
        assert_eq!(file.geometry().range(16), None);
    }

    #[test]
    fn an_empty_file_has_no_block_and_a_bare_header() {
        let file = sample(0, 65536);
        assert_eq!(file.encode().len(), 64);
        assert_eq!(CascadeFile::parse(&file.encode()), Ok(file));
    }

    #[test]
    fn lengths_near_the_end_of_the_number_range_are_refused_without_overflow() {
        let mut bytes = sample(1000, 64).encode();
        bytes[16..24].fill(0xff);
        assert!(matches!(
            CascadeFile::parse(&bytes),
            Err(FormatError::TooManyBlocks(_))
        ));
        bytes[24..32].fill(0xff);
        assert!(matches!(
            CascadeFile::parse(&bytes),
            Err(FormatError::HashCount { blocks: 1, .. })
        ));
        let geometry = Geometry::new(u64::MAX, u64::MAX - 1).expect("two blocks");
        assert_eq!(geometry.range(1), Some(u64::MAX - 1..u64::MAX));
        bytes[24..32].fill(0);
        assert_eq!(CascadeFile::parse(&bytes), Err(FormatError::ZeroBlockSize));
    }

    #[test]
    fn the_default_block_size_follows_the_length() {
        const MIB: u64 = 1 << 20;
        for (length, size) in [
            (0, 65536),
            (64 * MIB, 65536),
            (64 * MIB + 1, 131_072),
            (4096 * MIB, 4 * MIB),
            (1 << 40, 4 * MIB),
        ] {
            assert_eq!(default_block_size(length), size, "{length}");
        }
    }

    #[test]
    fn the_data_file_lies_beside_its_cascade_file() {
        assert_eq!(
            data_path(Path::new("a/b.iso.cascade")),
            Some(PathBuf::from("a/b.iso"))
        );
        assert_eq!(
            cascade_path(Path::new("a/b.iso")),
            Path::new("a/b.iso.cascade")
        );
        assert_eq!(data_path(Path::new("a/b.iso")), None);
        assert_eq!(data_path(Path::new(".cascade")), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back_and_nothing_shorter_or_longer_does(
            length in 0u64..5000, block_size in 1u64..600, reserved: [u8; 8], extra in 1usize..70,
        ) {
            let mut file = sample(length, block_size);
            file.reserved = reserved;
            let mut bytes = file.encode();
            prop_assert_eq!(CascadeFile::parse(&bytes), Ok(file.clone()));
            prop_assert_eq!(CascadeHash::of(&bytes), file.hash());
            for cut in 0..bytes.len() {
                prop_assert!(CascadeFile::parse(&bytes[..cut]).is_err());
            }
            bytes.resize(bytes.len() + extra, 0);
            prop_assert!(CascadeFile::parse(&bytes).is_err());
        }

        #[test]
        fn the_blocks_cover_the_file_without_gap_or_overlap(length in 0u64..5000, block_size in 1u64..600) {
            let geometry = Geometry::new(length, block_size).expect("valid");
            let mut end = 0;
            for block in 0..geometry.blocks() {
                let range = geometry.range(block).expect("in range");
                prop_assert_eq!(range.start, end);
                prop_assert!(range.end > range.start);
                end = range.end;
            }
            prop_assert_eq!(end, length);
        }
    }
}
