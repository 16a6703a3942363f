//! A server's ledger: the outcomes of all connections, in memory that its processes share.
//!
//! Each counter is written by the process that knows it, the parent or a child, and may be read by all. So a status
//! block can be printed at any time, and counts survive the process that made them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use log::Level;

use super::tally::Tally;
use crate::logging;
use crate::service::Outcome;
use crate::sys::shared::Shared;
use crate::text::without_errno;

/// The log has at most one line in this interval about events that may occur a thousand times a second.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Indices of the counters; those of the outcomes follow.
const ACCEPTED: usize = 0;
const TURNED_AWAY: usize = 1;
const SENT: usize = 2;
const SAID: usize = 3;
const UNSAID: usize = 4;
const OUTCOMES: usize = 5;

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    cells: Shared<AtomicU64>,
    /// The origin of times in the ledger. The clock is CLOCK_MONOTONIC, which is the same in all processes.
    epoch: Instant,
}

impl Ledger {
    /// An empty ledger.
    ///
    /// # Errors
    /// Where the memory cannot be mapped.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            cells: Shared::new(OUTCOMES + Outcome::ALL.len())?,
            epoch: Instant::now(),
        })
    }

    /// Counts an admitted connection; returns its number, from 1 on.
    pub fn accepted(&self) -> u64 {
        self.add(ACCEPTED, 1) + 1
    }

    /// Counts a connection that ended.
    pub fn ended(&self, outcome: Outcome) {
        self.add(Self::place_of(outcome), 1);
    }

    /// Counts bytes that were sent.
    #[inline(always)]
    pub fn sent(&self, bytes: u64) {
        self.add(SENT, bytes);
    }

    /// Counts a connection that was turned away, and logs why.
    pub fn turned_away(&self, remote: SocketAddr, why: impl fmt::Display) {
        self.add(TURNED_AWAY, 1);
        self.grumble_about(Some(remote), format_args!("turned {remote} away: {why}"));
    }

    /// Logs a line at a limited rate: of lines that follow too soon only the number is logged.
    pub fn grumble(&self, line: impl fmt::Display) {
        self.grumble_about(None, line);
    }

    fn grumble_about(&self, remote: Option<SocketAddr>, line: impl fmt::Display) {
        let Some(unsaid) = self.may_say() else {
            self.add(UNSAID, 1);
            return;
        };
        let mut line = without_errno(&line.to_string());
        if unsaid > 0 {
            line += &format!(" ({unsaid} lines before this were left out)");
        }
        match remote {
            Some(remote) => logging::about(remote, Level::Warn, format_args!("{line}")),
            None => log::warn!("{line}"),
        }
    }

    /// Whether a line may be logged now; if so, how many were suppressed before it.
    fn may_say(&self) -> Option<u64> {
        // Never 0, which says that nothing was said yet.
        let now = self.epoch.elapsed().as_millis() as u64 + 1;
        let said = self.get(SAID);
        let due = said == 0 || now.saturating_sub(said) >= SAY_EVERY.as_millis() as u64;
        let ours = due
            && self.cells[SAID]
                .compare_exchange(said, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        ours.then(|| self.cells[UNSAID].swap(0, Ordering::Relaxed))
    }

    /// Makes the memory read-only for this process and its children.
    ///
    /// # Errors
    /// As mprotect(2).
    pub fn protect(&self) -> io::Result<()> {
        self.cells.protect()
    }

    /// A snapshot of the counters.
    pub fn tally(&self) -> Tally {
        // Ends first: whoever ends meanwhile counts as there, and nobody as gone who had not come.
        let ended = Outcome::ALL.map(|outcome| (outcome, self.get(Self::place_of(outcome))));
        Tally::of(
            self.get(ACCEPTED),
            self.get(TURNED_AWAY),
            self.get(SENT),
            ended,
        )
    }

    /// Closes the books once no process serves any more: a connection without an outcome has crashed. Logs how many
    /// lines were suppressed.
    pub fn close(&self) {
        self.add(Self::place_of(Outcome::Crashed), self.tally().live());
        match self.cells[UNSAID].swap(0, Ordering::Relaxed) {
            0 => {}
            unsaid => log::warn!("{unsaid} more lines about connections were left out"),
        }
    }

    fn place_of(outcome: Outcome) -> usize {
        let index = Outcome::ALL.iter().position(|other| *other == outcome);
        OUTCOMES + index.unwrap_or_default()
    }

    fn get(&self, place: usize) -> u64 {
        self.cells[place].load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn add(&self, place: usize, count: u64) -> u64 {
        self.cells[place].fetch_add(count, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_has_crashed_once_nobody_serves() {
        let ledger = Ledger::new().expect("memory");
        assert_eq!((ledger.accepted(), ledger.accepted()), (1, 2));
        ledger.ended(Outcome::Done);
        ledger.sent(7);
        let tally = ledger.tally();
        assert_eq!(tally.live(), 1);
        assert_eq!(tally.to_string(), "2 connections: done 1");
        ledger.close();
        assert_eq!(
            ledger.tally().to_string(),
            "2 connections: done 1, crashed 1"
        );
        ledger.close();
        assert_eq!(ledger.tally().live(), 0);
    }

    #[test]
    fn of_many_lines_one_is_said_and_the_others_are_counted() {
        let ledger = Ledger::new().expect("memory");
        let remote = "192.0.2.1:1".parse().expect("an address");
        (0..1000).for_each(|_| ledger.turned_away(remote, "it is a test"));
        assert_eq!(ledger.get(UNSAID), 999);
        assert_eq!(
            ledger.tally().to_string(),
            "0 connections; 1000 turned away"
        );
    }
}
