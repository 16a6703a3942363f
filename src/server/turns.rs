//! Turns: how many connections are served at full speed at once, across the processes that serve them.
//!
//! Where many share an uplink, each block takes long, and those that push hardest get the most. One after the other,
//! blocks arrive sooner on average, and everybody gets as many.
//!
//! Each connection that has a block to send has a seat in shared memory, which says since when it waits, when it was
//! last seen alive, and whether it is sending. It goes when fewer than the limit are sending or have waited longer.
//! Nobody hands out anything, and there is no lock: a seat that was not heard of for a moment does not count, be it
//! that its process died or that its client takes nothing. Two that look at the same moment may both go; that is no
//! harm.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sys::shared::Shared;

/// Connections that can wait; whoever finds no seat goes at once.
const SEATS: usize = 1024;
/// A seat that was not heard of for so long does not count.
const STALE: Duration = Duration::from_millis(500);
/// One that was not heard of for so long may be taken by another.
const ABANDONED: Duration = Duration::from_secs(60);
/// How soon one that waits looks again: the sooner the fewer are before it.
const LOOK: Duration = Duration::from_millis(2);
const LONGEST_LOOK: Duration = Duration::from_millis(100);

/// The seats.
#[derive(Debug)]
pub struct Turns {
    at_once: usize,
    epoch: Instant,
    /// Two numbers for each seat: since when it waits (0: it is free), and when it was heard of last, in nanoseconds
    /// after the epoch; the lowest bit of the second says that it is sending.
    cells: Shared<AtomicU64>,
}

/// A connection that has a seat, or none while it has nothing to send.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    seat: Option<usize>,
    sending: bool,
}

impl Turns {
    /// So many connections go at once; at least one does.
    ///
    /// # Errors
    /// Where the memory cannot be had.
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

    /// How many others are sending, or have waited longer.
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
    /// Whether the connection may send now; otherwise when to ask again.
    ///
    /// # Errors
    /// With that moment.
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

    /// Something was sent.
    pub fn moved(&mut self) {
        if let Some(seat) = self.seat.filter(|_| self.sending) {
            self.turns
                .heard(seat)
                .store(self.turns.now() | 1, Ordering::Relaxed);
        }
    }

    /// Nothing is left to send: the next one's turn.
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
