//! How fast one connection may send: its part of the upload limit, and its turn.

use std::time::Instant;

use super::limits::Limits;
use super::turns::Turn;
use crate::net::bucket::{Allowance, Bucket};

/// The pace of one connection.
#[derive(Debug)]
pub struct Pace<'a> {
    bucket: Option<&'a Bucket>,
    allowance: Allowance,
    turn: Option<Turn<'a>>,
}

impl<'a> Pace<'a> {
    /// Of a new connection.
    pub fn new(limits: &'a Limits) -> Self {
        Self {
            bucket: limits.upload.as_deref(),
            allowance: Allowance::default(),
            turn: limits.turns.as_deref().map(super::turns::Turns::join),
        }
    }

    /// How many of `wanted` bytes may be sent now; otherwise when to ask again. What is not of a file needs no turn.
    ///
    /// # Errors
    /// With that moment.
    pub fn take(&mut self, wanted: u64, of_file: bool) -> Result<u64, Instant> {
        if let Some(turn) = self.turn.as_mut().filter(|_| of_file) {
            turn.take()?;
        }
        match self.bucket {
            Some(bucket) => self.allowance.take(bucket, wanted),
            None => Ok(wanted),
        }
    }

    /// So many bytes were sent.
    pub fn moved(&mut self, bytes: usize) {
        self.allowance.moved(bytes as u64);
        if let Some(turn) = &mut self.turn {
            turn.moved();
        }
    }

    /// A response is complete: others have their turn.
    pub fn pass(&mut self) {
        if let Some(turn) = &mut self.turn {
            turn.pass();
        }
    }

    /// Whether what the system takes must not be far ahead of what the network has taken.
    pub fn is_paced(&self) -> bool {
        self.turn.is_some() || self.bucket.is_some()
    }
}
