//! One connection from its beginning to its end, for drivers that serve one at a time.

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

    /// Waits until the socket has one of `events`, until something else is to be looked at, or for as long as `until`
    /// says.
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

/// Waits in a process of the connection's own, which a TERM asks to finish.
#[derive(Debug, Default)]
pub struct InChild {
    /// Whether the last wait was none, so that it let no signal through.
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

/// Serves one connection to its end, waiting as long as it takes within the limits. Where the server was asked to
/// stop, it ends as soon as no response is under way.
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
        if waiter.is_finishing() && connection.is_idle() {
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

/// Runs what serves a connection; a panic, which was reported where it happened, ends nothing but that.
pub fn guarded(serve: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(serve)).unwrap_or(Outcome::Crashed)
}
