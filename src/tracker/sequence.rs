//! A sequence lock in shared memory: one writer, many readers, and no lock that a dying process could keep.
//!
//! Its number is odd during a write, and has changed after it. A reader that sees the same even number before and after
//! its reads has a consistent snapshot; otherwise it retries. It reads relaxed atomics: it may see garbage, which it
//! must survive, and discards.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::thread;
use std::time::Duration;

use super::shares::Refusal;
use crate::sys::shared::Shared;

/// How often a reader tries again when the owner has written meanwhile: at first at once, for a write takes
/// microseconds. Then it sleeps in between, about eight seconds in all, for the owner may have lost the processor in
/// the middle of a write, on a machine that has much else to do; clients wait for ten.
const ATTEMPTS_AT_ONCE: usize = 50;
const ATTEMPTS: usize = ATTEMPTS_AT_ONCE + 8000;
const NAP: Duration = Duration::from_millis(1);

/// The lock.
#[derive(Debug)]
pub(super) struct Sequence(Shared<AtomicU64>);

impl Sequence {
    /// A lock that nobody writes under.
    ///
    /// # Errors
    /// Where the memory cannot be mapped.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Shared::guarded_and_passable(1)?))
    }

    /// The descriptor from which another process maps the same lock for reading, with [`Sequence::passed`].
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }

    /// Maps a lock that another process passed.
    ///
    /// # Errors
    /// Where it is none.
    pub fn passed(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(Shared::passed(fd, 1)?))
    }

    /// A version that differs after each change.
    pub fn version(&self) -> u64 {
        // A fence, for a load from memory that is only read must be relaxed.
        let version = self.0[0].load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        version
    }

    /// Runs `read` until it has seen a consistent snapshot.
    ///
    /// # Errors
    /// [`Refusal::Busy`] where the owner wrote meanwhile, each time.
    pub fn read<T>(&self, mut look: impl FnMut() -> T) -> Result<T, Refusal> {
        for attempt in 0..ATTEMPTS {
            let before = self.version();
            if before.is_multiple_of(2) {
                let seen = look();
                // Nothing of what was looked at is read after the version below.
                fence(Ordering::Acquire);
                if self.0[0].load(Ordering::Relaxed) == before {
                    return Ok(seen);
                }
            }
            if attempt < ATTEMPTS_AT_ONCE {
                thread::yield_now();
            } else {
                thread::sleep(NAP);
            }
        }
        Err(Refusal::Busy)
    }

    /// Starts a write, which lasts until the returned guard is dropped.
    pub fn write(&self) -> Writing<'_> {
        let version = &self.0.writing()[0];
        version.store(version.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        // Nothing is written before the version is odd.
        fence(Ordering::Release);
        Writing(version)
    }
}

/// A write that is under way.
#[derive(Debug)]
pub(super) struct Writing<'a>(&'a AtomicU64);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // Whoever sees this version sees everything that was written before.
        self.0
            .store(self.0.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}
