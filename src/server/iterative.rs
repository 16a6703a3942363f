//! One connection at a time, as CS:APP's `echoserveri`. A second client waits in the backlog until the first is done.
//!
//! There is a single flow of control, so no question of concurrent writers: a report is applied where it is made. While
//! the loop waits for a client it also handles signals and the service's timers.

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::PollFlags;
use nix::sys::signal::Signal;

use super::accept::{Door, Grace, stop_listening};
use super::connection::{Connection, Until};
use super::converse::{Waiter, converse, guarded};
use super::guests::Guests;
use super::ledger::Ledger;
use super::limits::Limits;
use super::orders;
use super::reception::{Guest, Reception};
use super::tally::{Id, log_accept, log_end};
use crate::service::{Apart, Service};
use crate::sys::poll::{Woken, wait_or_wake};
use crate::sys::signals::Signals;

/// Serves connections, one after the other, until TERM or INT.
///
/// # Errors
/// Where the loop itself cannot go on.
#[inline(never)]
pub fn serve<S: Service>(
    listeners: &[TcpListener],
    service: &S,
    limits: &Limits,
    ledger: &Ledger,
    signals: &Signals,
) -> io::Result<()> {
    let guests = Guests::new(limits.max_per_address)?;
    let reception = Reception::new(&guests, ledger, service.regret());
    let mut door = Door::open(listeners, signals, reception)?;
    let meanwhile = Meanwhile {
        service,
        listeners,
        signals,
        limits,
        ledger,
        grace: RefCell::default(),
    };
    while !door.is_stopping() && !meanwhile.is_finishing() {
        let mut ready = door.wait(true, None, meanwhile.tick())?;
        if ready.signal {
            meanwhile.heed();
        }
        while !meanwhile.is_finishing()
            && let Some(guest) = door.accept(&mut ready)
        {
            let Guest {
                stream,
                remote,
                place,
            } = guest;
            let id = Id::Number(ledger.accepted());
            log_accept(id, remote);
            let outcome = guarded(|| {
                let session = service.open(remote, SystemTime::now());
                let mut connection =
                    Connection::new(stream, session, limits, ledger, Instant::now());
                converse(&mut connection, &meanwhile, |report| {
                    service.apply(remote, report, SystemTime::now());
                    Ok(())
                })
            });
            log_end(id, remote, outcome, outcome.describe());
            ledger.ended(outcome);
            guests.leave(place);
        }
    }
    stop_listening(listeners, limits);
    Ok(())
}

/// What needs attention while the loop waits for a client.
struct Meanwhile<'a, S> {
    service: &'a S,
    listeners: &'a [TcpListener],
    signals: &'a Signals,
    limits: &'a Limits,
    ledger: &'a Ledger,
    /// Set once the server was asked to stop.
    grace: RefCell<Option<Grace<'a>>>,
}

impl<S: Service> Meanwhile<'_, S> {
    fn tick(&self) -> Duration {
        self.service.tick(SystemTime::now(), Apart::InThread)
    }

    /// Handles signals other than those to stop.
    fn heed(&self) {
        let helpers = format_args!("children: none");
        orders::heed(self.signals, self.service, self.ledger, helpers);
    }

    /// Handles what signals may have arrived.
    fn look_at_signals(&self) {
        self.signals.clear();
        self.heed();
        let mut grace = self.grace.borrow_mut();
        let asked = [Signal::SIGTERM, Signal::SIGINT];
        if grace.is_none() && self.signals.take_any(&asked).is_some() {
            stop_listening(self.listeners, self.limits);
            *grace = Some(Grace::new(self.signals, self.limits.grace));
        }
    }

    /// The time left in the grace period, if the server was asked to stop; an error once it is over.
    fn grace_left(&self) -> io::Result<Option<Duration>> {
        let mut grace = self.grace.borrow_mut();
        if grace.as_mut().is_some_and(Grace::is_over) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(grace.as_ref().map(Grace::left))
    }
}

impl<S: Service> Waiter for Meanwhile<'_, S> {
    fn is_finishing(&self) -> bool {
        self.grace.borrow().is_some()
    }

    fn wait(
        &self,
        socket: BorrowedFd<'_>,
        events: PollFlags,
        until: &mut Until,
    ) -> io::Result<Woken> {
        let deadline = until.settle();
        let tick = self.tick();
        let left = self.grace_left()?.map_or(tick, |left| left.min(tick));
        let soon = deadline.min(Instant::now() + left);
        match wait_or_wake(socket, events, self.signals.as_fd(), soon)? {
            Woken::Interrupted => {
                self.look_at_signals();
                Ok(Woken::Interrupted)
            }
            Woken::TimedOut if Instant::now() < deadline => Ok(Woken::Interrupted),
            woken => Ok(woken),
        }
    }
}
