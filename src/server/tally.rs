//! How many connections there were, and how they ended.

use std::collections::BTreeMap;
use std::fmt;

use crate::service::Outcome;

/// Counts of connections by outcome.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    accepted: u64,
    ended: BTreeMap<Outcome, u64>,
}

impl Tally {
    /// Counts a connection that was accepted.
    pub fn accepted(&mut self) {
        self.accepted += 1;
    }

    /// Counts a connection that ended.
    pub fn ended(&mut self, outcome: Outcome) {
        *self.ended.entry(outcome).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.accepted == 1 { "" } else { "s" };
        write!(f, "{} connection{plural}", self.accepted)?;
        for (index, (outcome, count)) in self.ended.iter().enumerate() {
            write!(
                f,
                "{}{} {count}",
                if index == 0 { ": " } else { ", " },
                outcome.describe()
            )?;
        }
        Ok(())
    }
}
