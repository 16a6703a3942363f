//! What the threads of a server share: their count, the request to stop, and one lock.
//!
//! The service's state has one writer at a time here, too: whoever applies a report or runs periodic work holds the
//! lock. Readers take none.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::accept::Grace;
use super::connection::{Connection, Until};
use super::converse::{Waiter, converse, guarded};
use super::guests::Guests;
use super::ledger::Ledger;
use super::limits::Limits;
use super::reception::Guest;
use super::tally::{Id, log_accept, log_end};
use crate::service::{Apart, Service};
use crate::sys::poll::{Woken, wait_or_wake};

/// An accepted connection that waits for a thread or is being served by one.
#[derive(Debug)]
pub struct Job {
    guest: Guest,
    begun: Instant,
}

/// The threads of a server and the accept loop that feeds them.
pub struct Crew<'a, S> {
    service: &'a S,
    limits: &'a Limits,
    ledger: &'a Ledger,
    guests: &'a Guests,
    /// Held by the writer of the state.
    writing: Mutex<()>,
    /// Open connections.
    live: AtomicUsize,
    /// The most that may be open.
    room: usize,
    finishing: AtomicBool,
    abandoned: AtomicBool,
    /// Becomes readable when the flag of the same name is set, and so wakes threads that wait for a client.
    finish: EventFd,
    abandon: EventFd,
    /// Written when a connection has ended for which the loop may be waiting, or when the state has changed.
    news: EventFd,
}

impl<'a, S: Service> Crew<'a, S> {
    /// A crew with at most `room` connections at once.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new(
        service: &'a S,
        limits: &'a Limits,
        ledger: &'a Ledger,
        guests: &'a Guests,
        room: usize,
    ) -> io::Result<Self> {
        let event = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Ok(Self {
            service,
            limits,
            ledger,
            guests,
            writing: Mutex::default(),
            live: AtomicUsize::new(0),
            room,
            finishing: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            finish: event()?,
            abandon: event()?,
            news: event()?,
        })
    }

    /// Runs periodic work that is due; returns how long it is until more is due.
    pub fn tick(&self) -> Duration {
        let _writing = lock(&self.writing);
        self.service.tick(SystemTime::now(), Apart::InThread)
    }

    /// Whether another connection may be accepted. If not, [`Crew::news`] becomes readable when it is time to ask
    /// again.
    pub fn has_room(&self) -> bool {
        self.count() < self.room
    }

    /// The number of open connections.
    pub fn count(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    /// Readable when the loop has to look at the crew again.
    pub fn news(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Resets [`Crew::news`]; call it before looking at the crew.
    pub fn clear(&self) {
        // There is nothing to read where nobody wrote.
        let _ = self.news.read();
    }

    /// Enters a connection that was accepted.
    pub fn job(&self, guest: Guest) -> Job {
        self.live.fetch_add(1, Ordering::SeqCst);
        let begun = Instant::now();
        Job { guest, begun }
    }

    /// Serves a connection to its end, in the calling thread. A panic ends only this connection.
    pub fn serve(&self, Job { guest, begun }: Job) {
        let Guest {
            stream,
            remote,
            place,
        } = guest;
        let id = Id::Number(self.ledger.accepted());
        log_accept(id, remote);
        let outcome = guarded(|| {
            let session = self.service.open(remote, SystemTime::now());
            let mut connection = Connection::new(&stream, session, self.limits, self.ledger, begun);
            converse(&mut connection, self, |report| {
                let _writing = lock(&self.writing);
                self.service.apply(remote, report, SystemTime::now());
                // Something may be due earlier than the loop knows.
                let _ = self.news.write(1);
                Ok(())
            })
        });
        drop(stream);
        log_end(id, remote, outcome, outcome.describe());
        self.ledger.ended(outcome);
        self.guests.leave(place);
        self.count_end();
    }

    /// Gives back a connection for which no thread could be started.
    pub fn give_up(&self, job: Job) -> Guest {
        self.count_end();
        job.guest
    }

    fn count_end(&self) {
        let before = self.live.fetch_sub(1, Ordering::SeqCst);
        // The loop only waits for an end where there was no room, or where it stops.
        if before == self.room || self.is_finishing() {
            let _ = self.news.write(1);
        }
    }

    /// Asks all threads to finish, and abandons those that have not by the end of the grace period.
    ///
    /// # Errors
    /// As poll(2).
    pub fn stop(&self, mut grace: Grace<'_>) -> io::Result<()> {
        self.finishing.store(true, Ordering::SeqCst);
        let _ = self.finish.write(1);
        while self.count() > 0 {
            if grace.is_over() {
                self.abandoned.store(true, Ordering::SeqCst);
                let _ = self.abandon.write(1);
            }
            grace.wait(Some(self.news()))?;
            self.clear();
        }
        Ok(())
    }
}

impl<S: Service> Waiter for Crew<'_, S> {
    fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::SeqCst)
    }

    fn wait(
        &self,
        socket: BorrowedFd<'_>,
        events: PollFlags,
        until: &mut Until,
    ) -> io::Result<Woken> {
        let deadline = until.settle();
        if self.abandoned.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let wake = if self.is_finishing() {
            &self.abandon
        } else {
            &self.finish
        };
        wait_or_wake(socket, events, wake.as_fd(), deadline)
    }
}

/// Ignores poisoning: every change is a single call, so a thread that panicked left no partial change behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
