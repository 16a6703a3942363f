//! Who of those that connect is let in, and what becomes of the others.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::guests::{Guests, Place};
use super::ledger::Ledger;
use super::refusals::Refusals;

/// A connection that was let in.
#[derive(Debug)]
pub struct Guest {
    /// It does not block.
    pub stream: TcpStream,
    /// Its other end.
    pub remote: SocketAddr,
    /// Where it is counted.
    pub place: Place,
}

/// Lets connections in, or turns them away.
#[derive(Debug)]
pub struct Reception<'a> {
    guests: &'a Guests,
    ledger: &'a Ledger,
    /// What those are told that are turned away.
    regret: Vec<u8>,
    refusals: Refusals,
}

impl<'a> Reception<'a> {
    /// Nobody was turned away yet.
    pub fn new(guests: &'a Guests, ledger: &'a Ledger, regret: Vec<u8>) -> Self {
        Self {
            guests,
            ledger,
            regret,
            refusals: Refusals::default(),
        }
    }

    /// The books of the server.
    pub fn ledger(&self) -> &'a Ledger {
        self.ledger
    }

    /// Lets a connection in, unless its address has as many as it may.
    #[inline]
    pub fn let_in(&mut self, stream: TcpStream, remote: SocketAddr) -> Option<Guest> {
        if let Some(place) = self.guests.enter(remote.ip()) {
            return Some(Guest {
                stream,
                remote,
                place,
            });
        }
        let limit = self.guests.limit();
        let why = format_args!("its address has {limit} connections already");
        self.turn_away(stream, remote, why);
        None
    }

    /// Turns a connection away that was let in, but cannot be served.
    pub fn send_off(&mut self, guest: Guest, why: impl fmt::Display) {
        self.guests.leave(guest.place);
        self.turn_away(guest.stream, guest.remote, why);
    }

    fn turn_away(&mut self, stream: TcpStream, remote: SocketAddr, why: impl fmt::Display) {
        self.ledger.turned_away(remote, why);
        self.refusals.refuse(stream, &self.regret);
    }

    /// Closes what was turned away a moment ago; says when this is due again.
    pub fn tick(&mut self) -> Duration {
        self.refusals.tick()
    }

    /// Closes what was turned away, though its moment is not over: there will be no time for it.
    pub fn close_all(&mut self) {
        self.refusals.close_all();
    }
}
