//! The sending rate of one connection: its share of the upload limit, and its upload slot.

use std::time::Instant;

use super::limits::Limits;
use super::turns::Turn;
use crate::net::bucket::{Allowance, Bucket};

/// The sending rate of one connection.
#[derive(Debug)]
pub struct Pace<'a> {
    bucket: Option<&'a Bucket>,
    allowance: Allowance,
    turn: Option<Turn<'a>>,
}

impl<'a> Pace<'a> {
    /// For a new connection.
    pub fn new(limits: &'a Limits) -> Self {
        Self {
            bucket: limits.upload.as_deref(),
            allowance: Allowance::default(),
            turn: limits.turns.as_deref().map(super::turns::Turns::join),
        }
    }

    /// How many of `wanted` bytes may be sent now. Only file contents need a slot.
    ///
    /// # Errors
    /// When to ask again, where nothing may be sent now.
    pub fn take(&mut self, wanted: u64, of_file: bool) -> Result<u64, Instant> {
        if let Some(turn) = self.turn.as_mut().filter(|_| of_file) {
            turn.take()?;
        }
        match self.bucket {
            Some(bucket) => self.allowance.take(bucket, wanted),
            None => Ok(wanted),
        }
    }

    /// Accounts for bytes that were sent.
    pub fn moved(&mut self, bytes: usize) {
        self.allowance.moved(bytes as u64);
        if let Some(turn) = &mut self.turn {
            turn.moved();
        }
    }

    /// A response is complete: gives the slot to others.
    pub fn pass(&mut self) {
        if let Some(turn) = &mut self.turn {
            turn.pass();
        }
    }

    /// Whether the kernel's send buffer must be kept short, so that the rate is that of the network.
    pub fn is_paced(&self) -> bool {
        self.turn.is_some() || self.bucket.is_some()
    }
}
