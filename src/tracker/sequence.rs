//! A sequence lock in shared memory: one writer, many readers, and nothing that a dying process could keep.
//!
//! Its number is odd while something is being written, and another one afterwards. A reader that finds an even number
//! before it looks, and the same one afterwards, has seen what belongs together; otherwise it looks again. What it
//! looks at are relaxed atomics: it may see nonsense, which it must survive, and throws away.

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

    /// What another process makes the same lock of, to read under, with [`Sequence::passed`].
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }

    /// The lock that another process handed over.
    ///
    /// # Errors
    /// Where it is none.
    pub fn passed(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(Shared::passed(fd, 1)?))
    }

    /// Another number after each change.
    pub fn version(&self) -> u64 {
        // A fence, for a load from memory that is only read must be relaxed.
        let version = self.0[0].load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        version
    }

    /// Reads what belongs together.
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

    /// Begins to write; the write lasts as long as the value that is returned.
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
