//! Rate limits that all processes of the node keep together.

use std::io;
use std::sync::Arc;

use crate::cli::Sources;
use crate::net::bucket::Bucket;
use crate::server::turns::Turns;

/// The limits of a node, in memory that its processes share.
#[derive(Debug)]
pub struct Throttle {
    /// Bytes per second that are sent.
    pub upload: Option<Arc<Bucket>>,
    /// Bytes per second that are received.
    pub download: Option<Arc<Bucket>>,
    /// How many connections are served at full speed at once.
    pub turns: Option<Arc<Turns>>,
}

impl Throttle {
    /// As the user says.
    ///
    /// # Errors
    /// Where the memory cannot be had.
    pub fn new(sources: &Sources) -> io::Result<Self> {
        let bucket = |rate: Option<u64>| rate.map(Bucket::new).transpose();
        let turns = sources
            .upload_slots
            .map(|slots| Turns::new(slots.into()))
            .transpose()?;
        Ok(Self {
            upload: bucket(sources.upload_limit)?.map(Arc::new),
            download: bucket(sources.download_limit)?.map(Arc::new),
            turns: turns.map(Arc::new),
        })
    }
}
