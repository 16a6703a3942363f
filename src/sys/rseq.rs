//! Restartable sequences (rseq(2)), which are unregistered because nothing here uses them.
//!
//! The C library registers a structure in thread-local storage to which the kernel writes the number of the current
//! processor each time the thread has migrated. After a fork that write copies the page, in the parent and in the
//! child. A loop that forks for each connection does without.

use std::arch::{asm, global_asm};

use super::call::{Sysno, syscall};

/// The sizes with which C libraries register the structure: its original one, and its next alignment.
const SIZES: [usize; 2] = [32, 64];
/// Unregisters (`RSEQ_FLAG_UNREGISTER`).
const UNREGISTER: usize = 1;
/// The signature with which the C library has registered it, which must be repeated (`RSEQ_SIG`).
const SIGNATURE: usize = 0x5305_3053;

// Where the place lies is known since glibc 2.35; other C libraries have no such symbol, and register nothing.
global_asm!(".weak __rseq_offset");

/// Unregisters this thread. The C library then asks the kernel wherever it would have read the structure.
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
