//! Who has how many connections: no address may have all of them.
//!
//! The counts lie in shared memory, a cell for each value that a keyed hash of the address can have: to look one up
//! touches nothing that a fork would have to copy, needs no lock, and allocates nothing. That two addresses share a
//! cell, and with it a limit, is as likely as one in 65536, and nobody can aim at it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::net::source::Source;
use crate::sys::shared::Shared;

/// How many values the hash has.
const CELLS: usize = 1 << 16;

/// The counts of connections by address, IPv6 by its first 64 bits.
#[derive(Debug)]
pub struct Guests {
    limit: u32,
    keys: RandomState,
    cells: Shared<AtomicU32>,
}

/// Where a guest is counted, to be given back with [`Guests::leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    /// Of those who are not counted: whoever connects from the machine itself.
    const EXEMPT: Self = Self(CELLS as u32);

    /// As a number other than 0.
    pub fn to_number(self) -> u64 {
        u64::from(self.0) + 1
    }

    /// The place of such a number.
    pub fn from_number(number: u64) -> Option<Self> {
        let place = u32::try_from(number.checked_sub(1)?).ok()?;
        (place <= Self::EXEMPT.0).then_some(Self(place))
    }
}

impl Guests {
    /// Nobody is here yet, and each address may have `limit` connections.
    ///
    /// # Errors
    /// Where the memory cannot be had.
    pub fn new(limit: u32) -> io::Result<Self> {
        Ok(Self {
            limit,
            keys: RandomState::new(),
            cells: Shared::new(CELLS)?,
        })
    }

    /// As [`Guests::new`], where the process that lets them in does not leave that to its children.
    ///
    /// # Errors
    /// As [`Guests::new`].
    pub fn of_one_process(limit: u32) -> io::Result<Self> {
        let guests = Self::new(limit)?;
        guests.cells.keep_from_children()?;
        Ok(guests)
    }

    /// How many connections an address may have.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Counts a connection, unless its address has as many as it may.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        if address.is_loopback() {
            return Some(Place::EXEMPT);
        }
        let place = self.keys.hash_one(Source::from(address)) as usize % CELLS;
        let before = self.cells[place].fetch_add(1, Ordering::Relaxed);
        if before < self.limit {
            return Some(Place(place as u32));
        }
        self.cells[place].fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// A connection that was counted here is over.
    pub fn leave(&self, place: Place) {
        if let Some(cell) = self.cells.get(place.0 as usize) {
            cell.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_so_many_connections_and_another_its_own() {
        let guests = Guests::new(2).expect("memory");
        let first = guests.enter(ip("192.0.2.1")).expect("the first");
        assert!(guests.enter(ip("192.0.2.1")).is_some());
        assert_eq!(guests.enter(ip("192.0.2.1")), None);
        assert!(guests.enter(ip("192.0.2.2")).is_some());
        guests.leave(first);
        assert!(guests.enter(ip("192.0.2.1")).is_some());
        assert_eq!(guests.enter(ip("192.0.2.1")), None);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let guests = Guests::new(1).expect("memory");
        assert!(guests.enter(ip("2001:db8::1")).is_some());
        assert_eq!(guests.enter(ip("2001:db8::2:3")), None);
        assert!(guests.enter(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn the_machine_itself_is_exempt() {
        let guests = Guests::new(1).expect("memory");
        for address in ["127.0.0.1", "127.1.2.3", "::1"] {
            let places: Vec<_> = (0..9).map(|_| guests.enter(ip(address))).collect();
            assert_eq!(places, [Some(Place::EXEMPT); 9]);
            guests.leave(Place::EXEMPT);
        }
    }

    #[test]
    fn a_place_survives_as_a_number() {
        for place in [Place(0), Place(CELLS as u32 - 1), Place::EXEMPT] {
            assert_eq!(Place::from_number(place.to_number()), Some(place));
        }
        assert_eq!(Place::from_number(0), None);
        assert_eq!(Place::from_number(u64::MAX), None);
    }
}
