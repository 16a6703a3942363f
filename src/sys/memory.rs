//! The memory of this process.

use std::hint::black_box;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};
use nix::unistd::{getpid, gettid};

/// Makes this process cheap to fork: fork(2) copies the page tables of all memory, and every page that is written to
/// while the child lives. Freed heap memory and unused stack go back to the kernel, and restartable sequences are
/// unregistered, which the kernel would keep writing to (see [`super::rseq`]).
pub fn make_small() {
    settle();
    #[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
    super::rseq::unregister();
    give_stack_back();
}

/// Does what the allocator has put off, and gives free memory back to the system: once before the first fork, and again
/// where much was freed.
///
/// The C library sorts what was freed only when it is asked for memory next that does not fit what was sorted before, and
/// writes to all of it for that, wherever it lies. A parent that allocates seldom leaves this to its children: each would
/// do it again, and copy ten pages and more.
pub fn settle() {
    /// More than lies free in one piece after a start, so that nothing fits before all is sorted; less than what the C
    /// library makes a mapping for (`M_MMAP_THRESHOLD`).
    const LARGE: usize = 127 << 10;
    drop(black_box(Vec::<u8>::with_capacity(black_box(LARGE))));
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives unused stack below the caller's frame back to the kernel.
#[inline(never)]
fn give_stack_back() {
    const PAGE: usize = 4096;
    /// The depth to which the program's start may have used the stack.
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

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;
    use crate::sys::exit::exit_now;

    /// Frees memory here and there; a child that allocates has to write to few pages all the same.
    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn children_have_nothing_to_put_in_order_that_was_freed_before() {
        const PIECES: usize = 200;
        const LENGTH: usize = 3000;
        let pieces: Vec<_> = (0..PIECES).map(|_| vec![1_u8; LENGTH]).collect();
        let kept: Vec<_> = pieces.into_iter().step_by(2).collect();
        settle();
        // SAFETY: beside other tests' threads the child may do what the C library allows: it allocates, reads a file, and
        // leaves through _exit.
        let child = match unsafe { fork() }.expect("it is forked") {
            ForkResult::Child => {
                drop(black_box(vec![1_u8; 2 * LENGTH]));
                let pages = own_pages(kept[0].as_ptr() as usize);
                exit_now(pages.map_or(u8::MAX, |pages| u8::try_from(pages).unwrap_or(u8::MAX)))
            }
            ForkResult::Parent { child } => child,
        };
        let ended = waitpid(child, None).expect("it ends");
        let WaitStatus::Exited(_, pages) = ended else {
            panic!("{ended:?}");
        };
        assert!(pages < 40, "{pages} pages, of {} holes", kept.len());
    }

    /// How many pages of the mapping with this address the process shares with none.
    fn own_pages(address: usize) -> Option<usize> {
        let maps = fs::read_to_string("/proc/self/smaps").ok()?;
        let mut lines = maps.lines().skip_while(|line| {
            let number = |hex| usize::from_str_radix(hex, 16).ok();
            let range = line
                .split(' ')
                .next()
                .and_then(|range| range.split_once('-'));
            let range = range.and_then(|(start, end)| Some(number(start)?..number(end)?));
            !range.is_some_and(|range| range.contains(&address))
        });
        let line = lines.find(|line| line.starts_with("Private_Dirty:"))?;
        let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib / 4)
    }
}
