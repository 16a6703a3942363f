//! Restartable sequences, which nothing here uses.
//!
//! The C library registers a place (rseq(2)) in which the system notes the processor that a thread runs on, each time
//! that it has moved. It lies among what belongs to the thread: after a fork the page is copied for the parent, and for
//! the child as well, only for that note. A loop that forks for each connection does without.

use std::arch::{asm, global_asm};

use super::call::{Sysno, syscall};

/// The sizes with which C libraries register the place: that of the structure when it was new, and its next alignment.
const SIZES: [usize; 2] = [32, 64];
/// To take a registration back (`RSEQ_FLAG_UNREGISTER`).
const UNREGISTER: usize = 1;
/// What the C library has registered with it, by which the system knows that it is the same (`RSEQ_SIG`).
const SIGNATURE: usize = 0x5305_3053;

// Where the place lies is known since glibc 2.35; other C libraries have no such symbol, and register nothing.
global_asm!(".weak __rseq_offset");

/// Takes the registration of this thread back. The C library asks the system instead wherever it would have looked.
pub fn unregister() {
    let offset: *const isize;
    let thread: usize;
    // SAFETY: reads the address of a symbol, null where there is none, and the address of the thread's own structure,
    // which lies at its beginning.
    unsafe {
        asm!(
            "mov {offset}, qword ptr [rip + __rseq_offset@GOTPCREL]",
            "mov {thread}, qword ptr fs:[0]",
            offset = out(reg) offset,
            thread = out(reg) thread,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    // SAFETY: where the symbol is, it is a constant of this type.
    let Some(offset) = (unsafe { offset.as_ref() }) else {
        return;
    };
    let place = thread.wrapping_add_signed(*offset);
    for size in SIZES {
        // SAFETY: the system forgets the place, or refuses where another was registered; it writes to none but that.
        let forgotten = unsafe { syscall!(Sysno::rseq, place, size, UNREGISTER, SIGNATURE) };
        if forgotten.is_ok() {
            return;
        }
    }
}
