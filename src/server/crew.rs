//! What the threads of a server share: how many they are, how they are told to stop, and one lock.
//!
//! The state has one writer at a time here, too: whoever applies a report, or does what is due, holds the lock. Readers
//! take none.

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

/// A connection that was accepted and waits for a thread, or has one.
#[derive(Debug)]
pub struct Job {
    guest: Guest,
    begun: Instant,
}

/// The threads of a server, and the loop that they belong to.
pub struct Crew<'a, S> {
    service: &'a S,
    limits: &'a Limits,
    ledger: &'a Ledger,
    guests: &'a Guests,
    /// Held by the one writer of the state.
    writing: Mutex<()>,
    /// Connections accepted and not ended.
    live: AtomicUsize,
    /// So many may be.
    room: usize,
    finishing: AtomicBool,
    abandoned: AtomicBool,
    /// Readable from the moment of the flag of its name on, for threads that wait for a client as well.
    finish: EventFd,
    abandon: EventFd,
    /// Written when the loop may have waited for a connection to end, or when the state has changed.
    news: EventFd,
}

impl<'a, S: Service> Crew<'a, S> {
    /// A crew that has at most `room` connections at once.
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

    /// Does what is due; says when something will be.
    pub fn tick(&self) -> Duration {
        let _writing = lock(&self.writing);
        self.service.tick(SystemTime::now(), Apart::InThread)
    }

    /// Whether another connection may be accepted. Where this said no, [`Crew::news`] says when to ask again.
    pub fn has_room(&self) -> bool {
        self.count() < self.room
    }

    /// How many connections were taken in and have not ended.
    pub fn count(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    /// Readable when the loop is to look again.
    pub fn news(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Makes [`Crew::news`] unreadable again: call it before the crew is looked at.
    pub fn clear(&self) {
        // There is nothing to read where nobody wrote.
        let _ = self.news.read();
    }

    /// Takes a connection in.
    pub fn job(&self, guest: Guest) -> Job {
        self.live.fetch_add(1, Ordering::SeqCst);
        let begun = Instant::now();
        Job { guest, begun }
    }

    /// Serves a connection to its end, in a thread. A panic ends it alone.
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

    /// There is no thread for a connection that was taken in: gives it back.
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

    /// Asks all threads to finish; gives up what is not finished within the grace.
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

/// A thread that panicked left nothing half done: what it changed it changed by one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
