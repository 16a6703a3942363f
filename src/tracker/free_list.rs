//! The free entries of a table.

/// The unused ids of a table: those that were never used, and a linked list of freed ones, whose links lie in the
/// entries themselves.
#[derive(Debug)]
pub(super) struct FreeList {
    /// The head of the list; [`NONE`] if it is empty.
    first: u32,
    /// The lowest id that was never used.
    pub fresh: u32,
    /// How many are in the list.
    given: u32,
    capacity: u32,
}

/// The end of a free list.
const NONE: u32 = u32::MAX;

impl FreeList {
    pub fn new(capacity: u32) -> Self {
        Self {
            first: NONE,
            fresh: 0,
            given: 0,
            capacity,
        }
    }

    /// How many ids are not in use.
    pub fn len(&self) -> u32 {
        self.capacity - self.fresh + self.given
    }

    /// An id that is not in use; `after` knows the links.
    pub fn take(&mut self, after: impl Fn(u32) -> u32) -> Option<u32> {
        if self.first != NONE {
            let id = self.first;
            self.first = after(id);
            self.given -= 1;
            return Some(id);
        }
        (self.fresh < self.capacity).then(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }

    /// Takes an id back; `set_after` keeps its link.
    pub fn give(&mut self, id: u32, set_after: impl Fn(u32, u32)) {
        set_after(id, self.first);
        self.first = id;
        self.given += 1;
    }
}
