//! Verification on demand: blocks of files that nobody has verified before.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::ServedFile;
use crate::cascade_file::CascadeFile;
use crate::hash::{BlockHash, CascadeHash};
use crate::store::pieces::{PIECE, hash_range, unobserved};

/// The expected hashes of blocks.
#[derive(Debug, Default)]
pub struct Hashes(HashMap<CascadeHash, CascadeFile>);

impl Hashes {
    /// Those in these cascade files.
    pub fn new(files: impl IntoIterator<Item = CascadeFile>) -> Self {
        let files = files.into_iter().map(|file| (file.hash(), file));
        Self(files.collect())
    }

    /// Verifies a block, unless that was done, and marks it as present if it is intact.
    pub(super) fn verify(&self, file: &ServedFile, block: u64) {
        let Ok(number) = u32::try_from(block) else {
            return;
        };
        let wanted = self.0.get(&file.hash).and_then(|cascade| {
            let hash = cascade.block_hashes().get(number as usize)?;
            Some((hash, cascade.geometry().range(number)?))
        });
        let Some((hash, range)) = wanted.filter(|_| !file.present.get(number)) else {
            return;
        };
        let mut hasher = Sha256::new();
        let mut piece = vec![0; PIECE.min((range.end - range.start) as usize)];
        let read = hash_range(&file.data, range, &mut hasher, &mut piece, &unobserved);
        // Where it cannot be read, it is not there.
        if read.is_ok() && BlockHash::finish(hasher) == *hash {
            file.present.set(number);
        }
    }
}
