//! A member of the pool: accepts connections, and serves one at a time.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::EventFd;
use nix::unistd::Pid;

use super::Server;
use super::signed::Signed;
use crate::server::accept::{Accepted, PAUSE, accept, log_no_room};
use crate::server::connection::Connection;
use crate::server::converse::{InChild, converse};
use crate::server::reception::{Guest, Reception};
use crate::server::tally::{Id, log_accept, log_end};
use crate::service::Service;
use crate::sys::poll::wait_readable;
use crate::sys::{alarm, epoll, fork, signals};

impl<'a, S: Service> Server<'a, S> {
    /// Admits connections.
    pub(super) fn reception(&self) -> Reception<'a> {
        Reception::new(self.guests, self.ledger, self.service.regret())
    }

    /// The main loop of a member: accept, serve, repeat, until it is asked to end.
    pub(super) fn member(&self, seat: &AtomicU64, applied: &EventFd) -> io::Result<()> {
        fork::reseed();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (index, listener) in (0..).zip(self.listeners) {
            // Of all members that wait, a connection wakes one.
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
            epoll.add(listener, EpollEvent::new(flags, index))?;
        }
        let mut reception = self.reception();
        while !(signals::asked_to_finish() || signals::is_term_pending()) {
            let mask = signals::blocked_while_waiting();
            let Some(index) = epoll::wait_with_mask(&epoll, mask, reception.tick())? else {
                continue;
            };
            match accept(&self.listeners[index as usize]) {
                Accepted::Connection(stream, remote) => {
                    if let Some(guest) = reception.let_in(stream, remote) {
                        reception.close_all();
                        self.converse(guest, seat, applied);
                    }
                }
                Accepted::Nobody | Accepted::Gone => {}
                Accepted::NoRoom(error) => {
                    log_no_room(&error, self.ledger);
                    wait_readable(&[], Some(PAUSE))?;
                }
            }
        }
        Ok(())
    }

    fn converse(&self, guest: Guest, seat: &AtomicU64, applied: &EventFd) {
        let Guest {
            stream,
            remote,
            place,
        } = guest;
        seat.store(place.to_number(), Ordering::Relaxed);
        alarm::end_after(self.limits.last_resort());
        let id = Id::Process(Pid::this());
        log_accept(id, remote);
        self.ledger.accepted();
        let session = self.service.open(remote, SystemTime::now());
        let now = Instant::now();
        let mut connection = Connection::new(&stream, session, self.limits, self.ledger, now);
        let outcome = converse(&mut connection, &InChild::default(), |report| {
            self.reports.send(&Signed { remote, report })?;
            applied.read()?;
            Ok(())
        });
        log_end(id, remote, outcome, outcome.describe());
        alarm::cancel();
        seat.store(0, Ordering::Relaxed);
        self.ledger.ended(outcome);
        self.guests.leave(place);
    }
}
