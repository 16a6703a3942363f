//! Admission: which connections are served, and how the others are turned away.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::guests::{Guests, Place};
use super::ledger::Ledger;
use super::refusals::Refusals;

/// An admitted connection.
#[derive(Debug)]
pub struct Guest {
    /// The socket, which is non-blocking.
    pub stream: TcpStream,
    /// The peer address.
    pub remote: SocketAddr,
    /// The cell in which it is counted.
    pub place: Place,
}

/// Admits connections, or turns them away.
#[derive(Debug)]
pub struct Reception<'a> {
    guests: &'a Guests,
    ledger: &'a Ledger,
    /// The message to those that are turned away.
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

    /// The server's ledger.
    pub fn ledger(&self) -> &'a Ledger {
        self.ledger
    }

    /// Admits a connection, unless its address is at the limit.
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

    /// Turns away a connection that was admitted but cannot be served.
    pub fn send_off(&mut self, guest: Guest, why: impl fmt::Display) {
        self.guests.leave(guest.place);
        self.turn_away(guest.stream, guest.remote, why);
    }

    fn turn_away(&mut self, stream: TcpStream, remote: SocketAddr, why: impl fmt::Display) {
        self.ledger.turned_away(remote, why);
        self.refusals.refuse(stream, &self.regret);
    }

    /// Closes refused connections whose time has come; returns when the next is due.
    pub fn tick(&mut self) -> Duration {
        self.refusals.tick()
    }

    /// Closes all refused connections early, since the server is about to end.
    pub fn close_all(&mut self) {
        self.refusals.close_all();
    }
}
