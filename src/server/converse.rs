//! Serving one connection from beginning to end, for the models that serve one at a time in each process or thread.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::poll::PollFlags;

use super::connection::{Connection, Until, Want};
use crate::service::{Outcome, Session};
use crate::sys::poll::{Woken, wait_interruptibly};
use crate::sys::signals;

/// How a driver that serves one connection at a time waits for it.
pub trait Waiter {
    /// Whether the server was asked to stop: idle connections close, transfers are finished.
    fn is_finishing(&self) -> bool;

    /// Waits until the socket has one of `events`, until something else needs attention, or until the deadline `until`.
    ///
    /// # Errors
    /// Where the connection is to be given up.
    fn wait(
        &self,
        socket: BorrowedFd<'_>,
        events: PollFlags,
        until: &mut Until,
    ) -> io::Result<Woken>;
}

/// Waits in a process of the connection's own, which SIGTERM asks to finish.
#[derive(Debug, Default)]
pub struct InChild {
    /// Whether the last wait did not block, so that no signal could be delivered.
    was_ready: Cell<bool>,
}

impl Waiter for InChild {
    fn is_finishing(&self) -> bool {
        signals::asked_to_finish() || self.was_ready.get() && signals::is_term_pending()
    }

    #[inline(always)]
    fn wait(
        &self,
        socket: BorrowedFd<'_>,
        events: PollFlags,
        until: &mut Until,
    ) -> io::Result<Woken> {
        // A wait that is interrupted begins anew; but then the process was asked to finish.
        let woken = wait_interruptibly(socket, events, until.left())?;
        self.was_ready.set(woken == Woken::Ready);
        Ok(woken)
    }
}

/// Serves one connection to its end, within the limits. Once the server was asked to stop, the connection ends as soon
/// as no response is in progress.
#[inline(always)]
pub fn converse<T: AsFd, S: Session>(
    connection: &mut Connection<'_, T, S>,
    waiter: &impl Waiter,
    report: impl FnMut(S::Report) -> io::Result<()>,
) -> Outcome {
    let outcome = take_turns(connection, waiter, report);
    connection.count_sent();
    outcome
}

#[inline(always)]
fn take_turns<T: AsFd, S: Session>(
    connection: &mut Connection<'_, T, S>,
    waiter: &impl Waiter,
    mut report: impl FnMut(S::Report) -> io::Result<()>,
) -> Outcome {
    loop {
        let events = match connection.advance(&mut report) {
            Want::Read => PollFlags::POLLIN,
            Want::Write => PollFlags::POLLOUT,
            Want::Pause => PollFlags::empty(),
            Want::End(outcome) => return outcome,
        };
        if waiter.is_finishing() && connection.may_be_closed() {
            return Outcome::Done;
        }
        match waiter.wait(connection.stream.as_fd(), events, &mut connection.until) {
            // Ready for nothing: both sides have hung up.
            Ok(Woken::Ready) if events.is_empty() => return Outcome::Disconnected,
            Ok(Woken::Ready | Woken::Interrupted) => {}
            Ok(Woken::TimedOut) if events.is_empty() => {}
            Ok(Woken::TimedOut) => return connection.timed_out(),
            Err(_) => return Outcome::Disconnected,
        }
    }
}

/// Runs the body that serves a connection. A panic, which was reported where it happened, ends that connection only.
pub fn guarded(serve: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(serve)).unwrap_or(Outcome::Crashed)
}
