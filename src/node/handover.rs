//! Handover of files that come and go to a running listener: from the supervisor, with their descriptors.
//!
//! The listener may not be allowed to open paths any more, and was forked before, so that it does not see its parent's
//! new memory. A message names a file and carries its descriptors: the data, the cascade file, and the shared memory
//! that says which blocks are present.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::cascade_file::Geometry;
use crate::hash::{CascadeHash, HASH_LEN};
use crate::service::blocks::read_errors::ReadErrors;
use crate::service::blocks::{Change, News, ServedFile};
use crate::store::bitmap::Bitmap;
use crate::store::stamp::Stamp;
use crate::sys::passing::{self, Passed};

/// What a message begins with.
const SERVE: u8 = 1;
const FORGET: u8 = 2;

/// Both ends, which outlive a listener that dies.
#[derive(Debug)]
pub struct Handover {
    sending: OwnedFd,
    receiving: OwnedFd,
    /// What comes back: blocks that the listener's children could not read.
    pub read_errors: Arc<ReadErrors>,
}

impl Handover {
    /// Nothing was handed over yet.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let (sending, receiving) = passing::pair()?;
        Ok(Self {
            sending,
            receiving,
            read_errors: Arc::new(ReadErrors::new()?),
        })
    }

    /// The end that a listener keeps.
    pub fn receiving(&self) -> BorrowedFd<'_> {
        self.receiving.as_fd()
    }

    /// Sends a change.
    ///
    /// # Errors
    /// Where there is no room for it now, and where a file is not one that can be handed over.
    pub fn send(&self, change: &Change) -> io::Result<()> {
        match change {
            Change::Serve(file) => {
                let (meta, meta_length) = &file.meta;
                let mut message = vec![SERVE];
                message.extend_from_slice(&file.hash.0);
                for number in [
                    file.id,
                    file.geometry.length(),
                    file.geometry.block_size(),
                    *meta_length,
                ] {
                    message.extend_from_slice(&number.to_ne_bytes());
                }
                let (present, stamp) = file
                    .present
                    .descriptor()
                    .zip(file.stamp.descriptor())
                    .ok_or(io::ErrorKind::Unsupported)?;
                let descriptors = [file.data.as_fd(), meta.as_fd(), present, stamp];
                passing::send(self.sending.as_fd(), &message, &descriptors)
            }
            Change::Forget(hash, id) => {
                let message = [&[FORGET][..], &hash.0, &id.to_ne_bytes()].concat();
                passing::send(self.sending.as_fd(), &message, &[])
            }
        }
    }
}

impl News for Handover {
    fn take(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        loop {
            match passing::receive(self.receiving.as_fd()).map(|passed| passed.map(change)) {
                Ok(None) => return changes,
                Ok(Some(Ok(change))) => changes.push(change),
                Ok(Some(Err(error))) | Err(error) => {
                    log::error!("the listener cannot take over a file: {error}");
                    return changes;
                }
            }
        }
    }
}

/// The change that a message is.
fn change(passed: Passed) -> io::Result<Change> {
    let nonsense = || io::Error::other("the message makes no sense");
    let (kind, rest) = passed.bytes.split_first().ok_or_else(nonsense)?;
    let (hash, rest) = rest.split_first_chunk::<HASH_LEN>().ok_or_else(nonsense)?;
    let hash = CascadeHash(*hash);
    let (numbers, []) = rest.as_chunks::<8>() else {
        return Err(nonsense());
    };
    let numbers: Vec<u64> = numbers
        .iter()
        .map(|number| u64::from_ne_bytes(*number))
        .collect();
    let (id, [length, block_size, meta_length]) = match numbers[..] {
        [id] if *kind == FORGET => return Ok(Change::Forget(hash, id)),
        [id, length, block_size, meta_length] => (id, [length, block_size, meta_length]),
        _ => return Err(nonsense()),
    };
    let geometry = Geometry::new(length, block_size).map_err(io::Error::other)?;
    let descriptors = <[OwnedFd; 4]>::try_from(passed.descriptors).map_err(|_| nonsense())?;
    let [data, meta, present, stamp] = descriptors;
    Ok(Change::Serve(ServedFile {
        id,
        hash,
        geometry,
        data: Arc::new(File::from(data)),
        meta: (Arc::new(File::from(meta)), meta_length),
        present: Arc::new(Bitmap::passed(present, geometry.blocks())?),
        stamp: Arc::new(Stamp::passed(stamp)?),
        onlookers: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_arrives_with_what_is_known_of_it_and_of_what_becomes_of_it() {
        let handover = Handover::new().expect("a pair of sockets");
        let file = || Arc::new(tempfile::tempfile().expect("a file"));
        let present = Arc::new(Bitmap::passable(100).expect("memory"));
        present.set(3);
        let served = ServedFile {
            id: 3,
            hash: CascadeHash([7; HASH_LEN]),
            geometry: Geometry::new(1000, 10).expect("100 blocks"),
            data: file(),
            meta: (file(), 64 + 3200),
            present: Arc::clone(&present),
            stamp: Arc::new(Stamp::passable().expect("memory")),
            onlookers: None,
        };
        handover
            .send(&Change::Serve(served.clone()))
            .and_then(|()| handover.send(&Change::Forget(CascadeHash([8; HASH_LEN]), 9)))
            .expect("there is room");
        let changes = handover.take();
        let [Change::Serve(taken), Change::Forget(forgotten, 9)] = &changes[..] else {
            panic!("{changes:?}");
        };
        assert_eq!((taken.hash, forgotten.0), (served.hash, [8; HASH_LEN]));
        assert_eq!(taken.id, 3);
        assert_eq!(taken.geometry.blocks(), 100);
        assert!(taken.present.get(3) && !taken.present.get(4));
        present.set(4);
        assert!(taken.present.get(4), "it sees what comes later");
        assert!(handover.take().is_empty());
    }

    #[test]
    fn memory_that_cannot_be_handed_over_is_not() {
        let handover = Handover::new().expect("a pair of sockets");
        let file = || Arc::new(tempfile::tempfile().expect("a file"));
        let served = ServedFile {
            id: 3,
            hash: CascadeHash([7; HASH_LEN]),
            geometry: Geometry::new(0, 10).expect("no blocks"),
            data: file(),
            meta: (file(), 64),
            present: Arc::new(Bitmap::new(0).expect("memory")),
            stamp: Arc::new(Stamp::new().expect("memory")),
            onlookers: None,
        };
        assert!(handover.send(&Change::Serve(served)).is_err());
    }
}
