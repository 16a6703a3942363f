//! The memory of this process.

use std::hint::black_box;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};
use nix::unistd::{getpid, gettid};

/// Makes this process one that is cheap to fork, which copies the tables of all memory that a process has, and each page
/// that is written to while the child lives. What was allocated once and freed goes back to the system, and so does what
/// the stack was needed for before; and nothing is noted any more that nobody reads (see [`super::rseq`]).
pub fn make_small() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
    super::rseq::unregister();
    give_stack_back();
}

/// Gives back to the system what was used of the stack below the frame of whoever calls this.
#[inline(never)]
fn give_stack_back() {
    const PAGE: usize = 4096;
    /// As far down as a program's start may have come.
    const USED: usize = 256 << 10;
    // Another thread's stack may end anywhere, and something else may lie below it.
    if gettid() != getpid() {
        return;
    }
    let local = 0_u8;
    let here = black_box(&raw const local) as usize;
    let end = (here - PAGE) & !(PAGE - 1);
    if let Some(start) = NonNull::new((end - USED) as *mut libc::c_void) {
        // SAFETY: below the stack of a process's first thread the system keeps a gap of a mebibyte; of the stack itself,
        // this is below all frames, with more in between than a call needs. What is not there is left out.
        let _ = unsafe { madvise(start, USED, MmapAdvise::MADV_DONTNEED) };
    }
}
