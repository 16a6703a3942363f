//! Which peers may be connected to, and when.
//!
//! Most addresses of peers are hearsay: a tracker says them, and whoever registered them there may have meant somebody
//! who never heard of this program. So a peer that has not answered yet is connected to at a limited rate:
//!
//! * at most [`CONNECTS_PER_SECOND`] connects in all, of which an answer gives its one back, for whoever answers wanted
//!   it;
//! * at most one connect a second to an address none of whose ports has answered, and to at most
//!   [`PORTS_PER_ADDRESS`] unproved ports of an address at the same time;
//! * after [`FAILURES`] failures at an address, one connect a minute to the rest of its ports;
//! * no connect to a port below 1024 or of another service ([`ports`]), unless a tracker's operator vouches for the peer.
//!
//! A peer that has answered, and one that the user named, is free of all this.
//!
//! The state lies in shared memory, so that all downloads of a node keep the limits together. It is a few token buckets:
//! numbers that say when everything so far will be paid for. There is no lock, and what a process that dies had
//! taken comes back by itself. Addresses share rows by a hash with a secret key: two that share one are limited
//! together, and nobody can choose with whom. Time is an argument.

pub mod ports;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::source::Source;
use crate::sys::shared::Shared;

/// How many connects there may be in a second to peers that do not answer; as many may come at once.
pub const CONNECTS_PER_SECOND: u64 = 16;
/// How many ports of an address that have not answered yet may be tried at the same time.
pub const PORTS_PER_ADDRESS: usize = 4;
/// How many failures at an address make its other ports wait.
pub const FAILURES: u64 = 20;
/// How long a failure counts.
const FAILURE_COUNTS: u64 = 60 * SECOND;
/// After this time a place of a process that died is free again: longer than any peer is waited for.
const LEASE: u64 = 60 * SECOND;

/// Times are in microseconds.
const SECOND: u64 = 1_000_000;

/// Rows for addresses, and the cells of a row: when the next connect is due, when all failures are forgotten, whether a
/// port has answered, and until when each of the places is taken.
const ROWS: usize = 4096;
const NEXT: usize = 0;
const FORGOTTEN: usize = 1;
const ANSWERED: usize = 2;
const PLACES: usize = 4;
const CELLS: usize = PLACES + PORTS_PER_ADDRESS;
/// Bits for addresses with their ports.
const BITS: usize = 1 << 20;

/// What decides, shared with all children that are forked later.
#[derive(Debug)]
pub struct Admission {
    epoch: Instant,
    key: RandomState,
    /// When all connects so far are paid for.
    all: Shared<AtomicU64>,
    addresses: Shared<AtomicU64>,
    /// Which peers have answered.
    answered: Shared<AtomicU64>,
}

/// Why a peer may not be connected to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its port is that of another service.
    Port,
    /// There were too many connects to its address lately, or there are too many now.
    Address,
    /// There were too many connects lately: nobody else would be admitted either.
    All,
}

/// A peer that may be connected to. It is given back with one of [`Admission::answered`], [`Admission::failed`] and
/// [`Admission::ended`].
#[derive(Debug)]
pub struct Admitted {
    peer: SocketAddr,
    /// The cell of the place that it takes at its address; none where it is free of limits.
    place: Option<usize>,
}

impl Admitted {
    /// One that is free of limits: the user named it.
    pub fn named(peer: SocketAddr) -> Self {
        Self { peer, place: None }
    }

    /// Whether it is limited.
    pub fn is_limited(&self) -> bool {
        self.place.is_some()
    }
}

impl Admission {
    /// Nobody was connected to yet.
    ///
    /// # Errors
    /// Where the memory cannot be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoch: Instant::now(),
            key: RandomState::new(),
            all: Shared::new(1)?,
            addresses: Shared::new(ROWS * CELLS)?,
            answered: Shared::new(BITS / 64)?,
        })
    }

    /// The time, as it is used here: the same in all processes.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Makes it read-only for this process and its children: a process that reads what strangers send changes nothing.
    ///
    /// # Errors
    /// As mprotect(2).
    pub fn protect(&self) -> io::Result<()> {
        self.all.protect()?;
        self.addresses.protect()?;
        self.answered.protect()
    }

    /// Admits a peer that a stranger has named; `good`: the operator of the tracker vouches for it.
    ///
    /// # Errors
    /// Where it may not be connected to now.
    pub fn admit(&self, now: Duration, peer: SocketAddr, good: bool) -> Result<Admitted, Refused> {
        if self.has_answered(peer) {
            return Ok(Admitted { peer, place: None });
        }
        if !good && ports::is_of_another_service(peer.port()) {
            return Err(Refused::Port);
        }
        let now = now.as_micros() as u64;
        let interval = SECOND / CONNECTS_PER_SECOND;
        if !take(&self.all[0], now, interval, CONNECTS_PER_SECOND) {
            return Err(Refused::All);
        }
        let place = self.admit_at_address(now, self.row(peer.ip()));
        if place.is_none() {
            give_back(&self.all[0], interval);
        }
        let place = place.ok_or(Refused::Address)?;
        Ok(Admitted {
            peer,
            place: Some(place),
        })
    }

    /// Takes a place at an address.
    fn admit_at_address(&self, now: u64, row: usize) -> Option<usize> {
        let cell = |cell: usize| &self.addresses[row + cell];
        let failing = cell(FORGOTTEN).load(Ordering::Relaxed);
        if failing > now + (FAILURES - 1) * FAILURE_COUNTS {
            return None;
        }
        let is_taken = |place: &usize| {
            let take = |until: u64| (until <= now).then_some(now + LEASE);
            let place = &self.addresses[*place];
            let taken = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
            taken.is_ok()
        };
        let place = (row + PLACES..row + CELLS).find(is_taken)?;
        if cell(ANSWERED).load(Ordering::Relaxed) == 0 && !take(cell(NEXT), now, SECOND, 1) {
            self.addresses[place].store(0, Ordering::Relaxed);
            return None;
        }
        Some(place)
    }

    /// There was another connect than the first to a peer: the next ones wait longer.
    pub fn connected_again(&self, now: Duration, admitted: &Admitted) {
        if admitted.is_limited() {
            let now = now.as_micros() as u64;
            let next = &self.addresses[self.row(admitted.peer.ip()) + NEXT];
            charge(next, now, SECOND);
            charge(&self.all[0], now, SECOND / CONNECTS_PER_SECOND);
        }
    }

    /// The peer has answered, in a way that only one of this network does: it is free of limits from now on.
    pub fn answered(&self, admitted: &mut Admitted) {
        let (word, bit) = self.bit(admitted.peer);
        let known = self.answered[word].fetch_or(bit, Ordering::Relaxed) & bit != 0;
        let row = self.row(admitted.peer.ip());
        self.addresses[row + ANSWERED].store(1, Ordering::Relaxed);
        if !known {
            self.addresses[row + FORGOTTEN].store(0, Ordering::Relaxed);
        }
        if let Some(place) = admitted.place.take() {
            self.addresses[place].store(0, Ordering::Relaxed);
            give_back(&self.all[0], SECOND / CONNECTS_PER_SECOND);
        }
    }

    /// The peer has not answered.
    pub fn failed(&self, now: Duration, admitted: Admitted) {
        if admitted.is_limited() {
            let forgotten = &self.addresses[self.row(admitted.peer.ip()) + FORGOTTEN];
            charge(forgotten, now.as_micros() as u64, FAILURE_COUNTS);
        }
        self.ended(admitted);
    }

    /// It is not known whether the peer would have answered.
    pub fn ended(&self, admitted: Admitted) {
        if let Some(place) = admitted.place {
            self.addresses[place].store(0, Ordering::Relaxed);
        }
    }

    /// Whether the peer has ever answered, about whatever file.
    pub fn has_answered(&self, peer: SocketAddr) -> bool {
        let (word, bit) = self.bit(peer);
        self.answered[word].load(Ordering::Relaxed) & bit != 0
    }

    fn row(&self, ip: IpAddr) -> usize {
        self.key.hash_one(Source::from(ip)) as usize % ROWS * CELLS
    }

    fn bit(&self, peer: SocketAddr) -> (usize, u64) {
        let peer = (peer.ip().to_canonical(), peer.port());
        let bit = self.key.hash_one(peer) as usize % BITS;
        (bit / 64, 1 << (bit % 64))
    }
}

/// Takes a token of a bucket that gets one in each interval and holds this many, if it has one.
fn take(bucket: &AtomicU64, now: u64, interval: u64, size: u64) -> bool {
    let take = |paid: u64| {
        let next = paid.max(now) + interval;
        (next <= now + size * interval).then_some(next)
    };
    let taken = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    taken.is_ok()
}

/// Takes a token of a bucket even where it has none.
fn charge(bucket: &AtomicU64, now: u64, interval: u64) {
    let add = |paid: u64| Some(paid.max(now).saturating_add(interval));
    let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
}

/// Gives a token back.
fn give_back(bucket: &AtomicU64, interval: u64) {
    let subtract = |paid: u64| Some(paid.saturating_sub(interval));
    let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
}
