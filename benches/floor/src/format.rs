//! The formats of PROTOCOL §1 and §3, as far as they are needed here.

use std::io::{self, Read};

use anyhow::ensure;
use sha2::{Digest, Sha256};

/// Bytes of a request, and of what stands before a block.
pub const REQUEST: usize = 64;
/// See [`REQUEST`].
pub const HEADER: usize = 9;
/// How many bytes are asked for ahead, and in how many requests at most.
pub const AHEAD: u64 = 4 << 20;
/// See [`AHEAD`].
pub const MOST_AHEAD: u64 = 256;

/// A cascade file.
pub struct Cascade {
    /// Its hash, which names the file.
    pub name: [u8; 32],
    /// Of the data file.
    pub length: u64,
    /// Of a block.
    pub block: u64,
    /// Of the whole data file.
    pub whole: [u8; 32],
    /// Of each block.
    pub hashes: Vec<[u8; 32]>,
}

impl Cascade {
    /// Reads one.
    pub fn read(path: &str) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path)?;
        ensure!(
            bytes.len() >= 64 && bytes.starts_with(b"CASCADE1"),
            "not a cascade file: {path}"
        );
        let (hashes, _) = bytes[64..].as_chunks();
        Ok(Self {
            name: Sha256::digest(&bytes).into(),
            length: u64::from_be_bytes(bytes[16..24].try_into()?),
            block: u64::from_be_bytes(bytes[24..32].try_into()?),
            whole: bytes[32..64].try_into()?,
            hashes: hashes.to_vec(),
        })
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> u64 {
        self.hashes.len() as u64
    }

    /// The length of a block.
    pub fn block_length(&self, block: u64) -> u64 {
        self.block.min(self.length - block * self.block)
    }

    /// How many requests are sent ahead.
    pub fn ahead(&self) -> u64 {
        (AHEAD / self.block).clamp(2, MOST_AHEAD)
    }

    /// A request for a block.
    pub fn request(&self, block: u64) -> [u8; REQUEST] {
        let mut bytes = [0; REQUEST];
        bytes[..8].copy_from_slice(b"CASCADE1");
        bytes[24..32].copy_from_slice(&block.to_be_bytes());
        bytes[32..].copy_from_slice(&self.name);
        bytes
    }
}

/// Reads the header of a response that must be a block of this length.
pub fn read_header(stream: &mut impl Read, length: u64) -> io::Result<()> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    if header[0] != 0 || header[1..] != length.to_be_bytes() {
        return Err(io::Error::other("the peer sent something else"));
    }
    Ok(())
}
