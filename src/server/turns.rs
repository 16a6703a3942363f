//! Upload slots: how many connections send at full speed at once, across the processes that serve them.
//!
//! If all connections share an uplink evenly, each block takes long, and the most aggressive clients get the most.
//! Served one after the other, blocks arrive sooner on average, and every client gets as many.
//!
//! Each connection that has a block to send takes a seat in shared memory, which records since when it waits, when it
//! was last seen alive, and whether it is sending. It may send when fewer connections than the limit are sending or
//! have waited longer. There is no coordinator and no lock: a seat that has not been refreshed for a moment does not
//! count, whether its process died or its client reads nothing. Two that look at the same moment may both start, which
//! does no harm.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sys::shared::Shared;

/// The number of seats; a connection that finds none free sends at once.
const SEATS: usize = 1024;
/// A seat that was not refreshed for this long does not count.
const STALE: Duration = Duration::from_millis(500);
/// A seat that was not refreshed for this long may be taken over.
const ABANDONED: Duration = Duration::from_secs(60);
/// How soon a waiting connection looks again: the fewer are before it, the sooner.
const LOOK: Duration = Duration::from_millis(2);
const LONGEST_LOOK: Duration = Duration::from_millis(100);

/// The seats.
#[derive(Debug)]
pub struct Turns {
    at_once: usize,
    epoch: Instant,
    /// Two numbers for each seat, in nanoseconds since the epoch: since when its connection waits (0: the seat is
    /// free), and when it was last refreshed. The lowest bit of the second is set while it is sending.
    cells: Shared<AtomicU64>,
}

/// A connection's seat, or none while it has nothing to send.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    seat: Option<usize>,
    sending: bool,
}

impl Turns {
    /// At most this many connections send at once (at least one).
    ///
    /// # Errors
    /// Where the memory cannot be mapped.
    pub fn new(at_once: usize) -> io::Result<Self> {
        Ok(Self {
            at_once: at_once.max(1),
            epoch: Instant::now(),
            cells: Shared::new(2 * SEATS)?,
        })
    }

    /// For a new connection.
    pub fn join(&self) -> Turn<'_> {
        Turn {
            turns: self,
            seat: None,
            sending: false,
        }
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64 | 1
    }

    fn since(&self, seat: usize) -> &AtomicU64 {
        &self.cells[2 * seat]
    }

    fn heard(&self, seat: usize) -> &AtomicU64 {
        &self.cells[2 * seat + 1]
    }

    /// Takes a free or abandoned seat.
    fn sit_down(&self, now: u64) -> Option<usize> {
        let start = std::process::id() as usize;
        (0..SEATS).map(|step| (start + step) % SEATS).find(|seat| {
            let since = self.since(*seat).load(Ordering::Relaxed);
            let age = now.saturating_sub(self.heard(*seat).load(Ordering::Relaxed));
            let free = since == 0 || age > ABANDONED.as_nanos() as u64;
            free && self
                .since(*seat)
                .compare_exchange(since, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        })
    }

    /// The number of other connections that are sending, or have waited longer.
    fn before(&self, own: usize, now: u64) -> usize {
        let waiting_since = self.since(own).load(Ordering::Relaxed);
        (0..SEATS)
            .filter(|seat| *seat != own)
            .filter(|seat| {
                let since = self.since(*seat).load(Ordering::Relaxed);
                let heard = self.heard(*seat).load(Ordering::Relaxed);
                let counts = since != 0 && now.saturating_sub(heard) < STALE.as_nanos() as u64;
                counts && (heard & 1 == 1 || (since, *seat) < (waiting_since, own))
            })
            .count()
    }
}

impl Turn<'_> {
    /// Whether the connection may send now.
    ///
    /// # Errors
    /// When to ask again, where it may not.
    pub fn take(&mut self) -> Result<(), Instant> {
        let now = self.turns.now();
        if self.seat.is_none() {
            self.seat = self.turns.sit_down(now);
        }
        let Some(seat) = self.seat else { return Ok(()) };
        if !self.sending {
            let before = self.turns.before(seat, now);
            if before >= self.turns.at_once {
                self.turns.heard(seat).store(now & !1, Ordering::Relaxed);
                let rounds = (before / self.turns.at_once) as u32;
                return Err(Instant::now() + (LOOK * rounds).min(LONGEST_LOOK));
            }
            self.sending = true;
            self.turns.heard(seat).store(now | 1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Refreshes the seat after something was sent.
    pub fn moved(&mut self) {
        if let Some(seat) = self.seat.filter(|_| self.sending) {
            self.turns
                .heard(seat)
                .store(self.turns.now() | 1, Ordering::Relaxed);
        }
    }

    /// Nothing is left to send: frees the seat for others.
    pub fn pass(&mut self) {
        self.sending = false;
        if let Some(seat) = self.seat.take() {
            self.turns.heard(seat).store(0, Ordering::Relaxed);
            self.turns.since(seat).store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.pass();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_go_at_once_and_then_who_has_waited_longest() {
        let turns = Turns::new(2).expect("memory");
        let mut all: Vec<Turn<'_>> = (0..5).map(|_| turns.join()).collect();
        let goes: Vec<bool> = all.iter_mut().map(|turn| turn.take().is_ok()).collect();
        assert_eq!(goes, [true, true, false, false, false]);
        all[0].pass();
        assert!(all[0].take().is_err(), "it is behind the others now");
        assert!(all[3].take().is_err(), "another has waited longer");
        assert!(all[2].take().is_ok());
        all[1].pass();
        assert!(all[4].take().is_err());
        assert!(all[3].take().is_ok());
    }

    #[test]
    fn one_that_died_or_whose_client_takes_nothing_holds_nobody_up_for_long() {
        let turns = Turns::new(1).expect("memory");
        let (mut stuck, mut next) = (turns.join(), turns.join());
        assert!(stuck.take().is_ok());
        assert!(next.take().is_err());
        std::thread::sleep(STALE + Duration::from_millis(50));
        assert!(next.take().is_ok());
        std::mem::forget(stuck);
    }

    #[test]
    fn without_a_seat_one_goes_at_once() {
        let turns = Turns::new(1).expect("memory");
        let mut all: Vec<Turn<'_>> = (0..SEATS + 1).map(|_| turns.join()).collect();
        let goes = all.iter_mut().filter_map(|turn| turn.take().ok()).count();
        assert_eq!(goes, 2);
    }
}
