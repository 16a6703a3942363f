//! Data files that were hashed just before the node was started: what was read then is not read once more.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::item::Item;
use crate::hash::CascadeHash;
use crate::store::stamp;

/// A data file, as it was when its cascade file was made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    /// The cascade file that was made.
    pub hash: CascadeHash,
    /// Which file that was.
    pub file: FileState,
}

/// A file and the time of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    device: u64,
    inode: u64,
    length: u64,
    modified: u64,
}

impl FileState {
    /// The state of an open file.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: stamp::modified(file)?,
        })
    }
}

/// The time of the last change of this file's data, where they are still what was hashed.
pub(super) fn unchanged(hashed: &[Hashed], item: &Item) -> Option<u64> {
    if hashed.is_empty() || item.left_alone {
        return None;
    }
    let hash = item.hash;
    let file = FileState::of(item.data.reading()).ok()?;
    hashed
        .contains(&Hashed { hash, file })
        .then_some(file.modified)
}
