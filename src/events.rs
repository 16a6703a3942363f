//! What happens to files, for programs: one JSON object per line on standard output. cascade-get(1), Events.
//!
//! The processes of a node print their events themselves, each with a single write, so that lines do not mix.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;

use crate::hash::CascadeHash;
use crate::logging::complain;
use crate::output::print_json;
use crate::sys::shared::Shared;

/// Whether events are printed, and whether all could be: the processes of a node know that together.
#[derive(Debug, Clone, Default)]
pub struct Events {
    /// Not 0 once one was lost; nothing where nobody asked for events.
    lost: Option<Arc<Shared<AtomicU32>>>,
}

/// Something that happened. Names and meanings are documented, and stay; others may be added.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The node accepts connections.
    Listening {
        /// There.
        address: SocketAddr,
    },
    /// The cascade file was read: what is there of the data will be verified, and the rest downloaded.
    Started {
        /// Which file.
        #[serde(flatten)]
        file: Subject,
        /// Bytes of the data.
        length: u64,
        /// Bytes of a block.
        block_size: u64,
        /// How many blocks.
        blocks: u32,
    },
    /// The number of peers that are downloaded from has changed.
    Peers {
        /// Which file.
        #[serde(flatten)]
        file: Subject,
        /// It is this now.
        peers: u64,
    },
    /// More is there than before.
    Progress {
        /// Which file.
        #[serde(flatten)]
        file: Subject,
        /// Verified bytes that are there.
        bytes: u64,
        /// Bytes of the data.
        length: u64,
    },
    /// A peer did not do as it should.
    Failure {
        /// Which file.
        #[serde(flatten)]
        file: Subject,
        /// Which peer.
        peer: SocketAddr,
        /// The block, where it was about one.
        block: Option<u32>,
        /// Why, for programs.
        kind: &'static str,
        /// Why, for people.
        reason: String,
    },
    /// All blocks are there, and what is left takes longer than a second.
    Finishing {
        /// Which file.
        #[serde(flatten)]
        file: Subject,
        /// What is done: `checking` the hash of the whole file, or `syncing` it to the disk.
        step: &'static str,
    },
    /// All of the file is there and right.
    Complete {
        /// Which file.
        #[serde(flatten)]
        file: Subject,
        /// Bytes that were downloaded by this run.
        received: u64,
        /// Seconds that this took.
        seconds: f64,
        /// Peers from whom blocks came.
        peers: u64,
    },
    /// The command of `--exec` ended.
    Executed {
        /// Which file.
        #[serde(flatten)]
        file: Subject,
        /// The exit status, where it did not die of a signal.
        status: Option<i32>,
    },
    /// The file was given up.
    GivenUp {
        /// Which file.
        #[serde(flatten)]
        file: Subject,
        /// The exit status that this leads to: 1 an error, 3 data are missing.
        status: u8,
    },
}

/// The file that something happened to.
#[derive(Debug, Clone, Serialize)]
pub struct Subject {
    /// The path of the data file.
    file: String,
    /// The cascade hash.
    hash: String,
}

impl Subject {
    /// The file at this path with this hash.
    pub fn new(path: &Path, hash: &CascadeHash) -> Self {
        Self {
            file: path.to_string_lossy().into_owned(),
            hash: hash.to_string(),
        }
    }
}

impl Events {
    /// Printed on standard output, as JSON, where they are wanted; made before the processes that print them.
    ///
    /// # Errors
    /// Where the memory cannot be had in which they tell each other.
    pub fn new(wanted: bool) -> io::Result<Self> {
        let lost = wanted.then(|| Shared::new(1)).transpose()?;
        Ok(Self {
            lost: lost.map(Arc::new),
        })
    }

    /// Prints an event, where that is wanted. Where it cannot be written, the work goes on, and that is said once.
    pub fn emit<E: Serialize>(&self, event: impl FnOnce() -> E) {
        let Some(lost) = &self.lost else { return };
        if let Err(error) = print_json(&event())
            && lost[0].swap(1, Ordering::Relaxed) == 0
        {
            complain(&error);
        }
    }

    /// Whether an event could not be written, by this process or another one. That nobody reads any more is no loss.
    pub fn were_lost(&self) -> bool {
        let lost = self.lost.as_ref();
        lost.is_some_and(|lost| lost[0].load(Ordering::Relaxed) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object_that_names_itself() {
        let file = Subject::new("a b".as_ref(), &CascadeHash([0xab; 32]));
        let event = Event::Failure {
            file,
            peer: "192.0.2.1:80".parse().expect("an address"),
            block: Some(7),
            kind: "wrong_block",
            reason: "it sent a corrupt block (7)".into(),
        };
        let hash = "ab".repeat(32);
        assert_eq!(
            serde_json::to_string(&event).expect("it can be encoded"),
            format!(
                r#"{{"event":"failure","file":"a b","hash":"{hash}","peer":"192.0.2.1:80","block":7,"kind":"wrong_block","reason":"it sent a corrupt block (7)"}}"#
            )
        );
    }
}
