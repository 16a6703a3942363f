//! Connections per address: no address may take all of them.
//!
//! The counts lie in shared memory, one cell for each value of a keyed hash of the address. A lookup touches no memory
//! that fork(2) would have to copy, takes no lock and does not allocate. Two addresses share a cell, and so a limit,
//! with a probability of one in 65536; since the key is secret, nobody can provoke a collision.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::net::source::Source;
use crate::sys::shared::Shared;

/// The number of cells.
const CELLS: usize = 1 << 16;

/// Counts of connections by address; of IPv6 addresses the first 64 bits count.
#[derive(Debug)]
pub struct Guests {
    limit: u32,
    keys: RandomState,
    cells: Shared<AtomicU32>,
}

/// The cell in which a connection is counted; give it back with [`Guests::leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    /// For connections that are not counted: those from this machine.
    const EXEMPT: Self = Self(CELLS as u32);

    /// Encodes it as a number other than 0.
    pub fn to_number(self) -> u64 {
        u64::from(self.0) + 1
    }

    /// Decodes such a number.
    pub fn from_number(number: u64) -> Option<Self> {
        let place = u32::try_from(number.checked_sub(1)?).ok()?;
        (place <= Self::EXEMPT.0).then_some(Self(place))
    }
}

impl Guests {
    /// No connections yet, and at most `limit` for each address.
    ///
    /// # Errors
    /// Where the memory cannot be mapped.
    pub fn new(limit: u32) -> io::Result<Self> {
        Ok(Self {
            limit,
            keys: RandomState::new(),
            cells: Shared::new(CELLS)?,
        })
    }

    /// As [`Guests::new`], in memory that children do not inherit, for models in which only the parent admits
    /// connections.
    ///
    /// # Errors
    /// As [`Guests::new`].
    pub fn of_one_process(limit: u32) -> io::Result<Self> {
        let guests = Self::new(limit)?;
        guests.cells.keep_from_children()?;
        Ok(guests)
    }

    /// The most connections that an address may have.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Counts a connection, unless its address is at the limit.
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

    /// Stops counting a connection that has ended.
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
