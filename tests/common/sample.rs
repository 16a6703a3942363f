//! Data files that look random and are the same in every run, and their cascade files, made by the letter of
//! PROTOCOL §1 and not by the program under test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A data file with its cascade file, in memory. Clones share nothing, so keep large ones few.
#[derive(Clone)]
pub struct Sample {
    pub name: String,
    pub bytes: Vec<u8>,
    pub block_size: usize,
    /// The bytes of the cascade file.
    pub cascade: Vec<u8>,
}

impl Sample {
    /// A file of `length` bytes in blocks of `block_size`.
    pub fn new(name: &str, length: usize, block_size: usize) -> Self {
        Self::of(name, random(length), block_size)
    }

    /// A file of these bytes.
    pub fn of(name: &str, bytes: Vec<u8>, block_size: usize) -> Self {
        let mut cascade = b"CASCADE1\0\0\0\0\0\0\0\0".to_vec();
        cascade.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        cascade.extend_from_slice(&(block_size as u64).to_be_bytes());
        cascade.extend_from_slice(&Sha256::digest(&bytes));
        for block in bytes.chunks(block_size) {
            cascade.extend_from_slice(&Sha256::digest(block));
        }
        Self {
            name: name.into(),
            bytes,
            block_size,
            cascade,
        }
    }

    /// The same, but the cascade file contradicts itself: each block's hash is right, that of the whole is not.
    pub fn with_wrong_whole_hash(mut self) -> Self {
        self.cascade[32] ^= 1;
        self
    }

    pub fn blocks(&self) -> usize {
        self.bytes.len().div_ceil(self.block_size)
    }

    /// The bytes of a block, where there is such a block.
    pub fn block(&self, block: u64) -> Option<&[u8]> {
        let block = usize::try_from(block).ok()?;
        self.bytes.chunks(self.block_size).nth(block)
    }

    /// The cascade hash.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.cascade).into()
    }

    /// The cascade hash in hexadecimal.
    pub fn hex(&self) -> String {
        hex::encode(self.hash())
    }

    /// Where this file grows that is to be at `data`.
    pub fn part(&self, data: &Path) -> PathBuf {
        let mut path = data.as_os_str().to_owned();
        path.push(format!(".{}.part", &self.hex()[..8]));
        path.into()
    }

    /// The line that `get` prints for this file.
    pub fn line(&self, path: &Path) -> String {
        let data = hex::encode(Sha256::digest(&self.bytes));
        format!("{data}  {}", path.display())
    }

    /// Writes the cascade file into a directory.
    pub fn write_cascade(&self, directory: &Path) -> PathBuf {
        let path = directory.join(format!("{}.cascade", self.name));
        fs::write(&path, &self.cascade).expect("the cascade file can be written");
        path
    }

    /// Writes the data file into a directory.
    pub fn write_data(&self, directory: &Path) -> PathBuf {
        let path = directory.join(&self.name);
        fs::write(&path, &self.bytes).expect("the data file can be written");
        path
    }

    /// The blocks of this file that lie in the file at `path`, where they belong.
    pub fn held(&self, path: &Path) -> BTreeSet<u64> {
        let there = fs::read(path).unwrap_or_default();
        self.bytes
            .chunks(self.block_size)
            .zip(there.chunks(self.block_size))
            .enumerate()
            .filter(|(_, (right, there))| there.starts_with(right))
            .map(|(block, _)| block as u64)
            .collect()
    }

    /// The numbers of all blocks.
    pub fn all(&self) -> BTreeSet<u64> {
        (0..self.blocks() as u64).collect()
    }

    /// Checks that the file at `path` is this one, byte for byte.
    #[track_caller]
    pub fn assert_complete(&self, path: &Path) {
        let there = fs::read(path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        assert_eq!(there.len(), self.bytes.len(), "{}", path.display());
        // Not assert_eq!: nobody wants to read 100 MiB.
        assert!(there == self.bytes, "{} has other bytes", path.display());
    }
}

/// Bytes that look random, the same for the same length. No block of them is like another, and none is all zeros.
pub fn random(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ length as u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
