//! Memory that children do not inherit (`MADV_DONTFORK`).
//!
//! A fork does not copy it, and the owner can go on writing to it for free; any other page that it shares with a child
//! is copied at the first write. A compromised child cannot read or modify it either: touching it kills the child.

use std::alloc::Layout;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use allocator_api2::alloc::{AllocError, Allocator};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// The least alignment of mmap(2).
const ALIGNMENT: usize = 4096;

/// An allocator of such memory. Each allocation is a mapping of its own, so it is meant for few and large ones that
/// seldom grow.
#[derive(Debug, Default, Clone, Copy)]
pub struct Uninherited;

// SAFETY: each allocation is a mapping of its own, which stays where it is until it is given back, whatever copy of the
// allocator is used for it; it is as large as was asked for, and aligned to a page.
unsafe impl Allocator for Uninherited {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.align() > ALIGNMENT {
            return Err(AllocError);
        }
        // mmap(2) does not make empty mappings.
        let length = NonZeroUsize::new(layout.size()).unwrap_or(NonZeroUsize::MIN);
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping touches no existing memory.
        let start = unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE) };
        let start = start.map_err(|_| AllocError)?;
        // SAFETY: the mapping is the one that was just made. Where the system refuses, it is inherited, at some cost.
        let _ = unsafe { madvise(start, length.get(), MmapAdvise::MADV_DONTFORK) };
        Ok(NonNull::slice_from_raw_parts(start.cast(), layout.size()))
    }

    unsafe fn deallocate(&self, start: NonNull<u8>, layout: Layout) {
        // SAFETY: whoever calls this gives back what `allocate` made with this layout, and has no reference to it left.
        let _ = unsafe { munmap(start.cast(), layout.size().max(1)) };
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;

    #[test]
    fn a_table_grows_and_shrinks_in_it() {
        let mut table = hashbrown::HashMap::with_hasher_in(RandomState::new(), Uninherited);
        table.extend((0..10_000).map(|n| (n, n.to_string())));
        table.retain(|n, _| n % 1000 == 7);
        table.shrink_to_fit();
        let mut left: Vec<_> = table.into_values().collect();
        left.sort_unstable();
        assert_eq!(left.len(), 10);
        assert_eq!(left[9], "9007");
    }

    #[test]
    fn what_is_inherited_ends_before_it_and_begins_behind_it() {
        let mut memory = allocator_api2::vec::Vec::new_in(Uninherited);
        memory.extend_from_slice(&[1_u8; 10_000]);
        let place = format!("{:x}-", memory.as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("it can be read");
        let flags = maps
            .lines()
            .skip_while(|line| !line.starts_with(&place))
            .find(|line| line.starts_with("VmFlags:"))
            .expect("a mapping begins there");
        assert!(flags.split(' ').any(|flag| flag == "dc"), "{flags}");
    }
}
