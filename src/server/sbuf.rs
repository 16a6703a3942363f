//! A bounded buffer between one producer and many consumers: CS:APP's `sbuf`, which can be closed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A bounded queue. Removing blocks while it is empty, inserting while it is full.
#[derive(Debug)]
pub struct Sbuf<T> {
    queue: Mutex<Queue<T>>,
    capacity: usize,
    items: Condvar,
    slots: Condvar,
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Sbuf<T> {
    /// An empty buffer with room for `capacity` items, at least one.
    pub fn new(capacity: usize) -> Self {
        let queue = Queue {
            items: VecDeque::new(),
            closed: false,
        };
        Self {
            queue: Mutex::new(queue),
            capacity: capacity.max(1),
            items: Condvar::new(),
            slots: Condvar::new(),
        }
    }

    /// Appends an item; blocks while the buffer is full.
    pub fn insert(&self, item: T) {
        let is_full = |queue: &mut Queue<T>| queue.items.len() >= self.capacity;
        let queue = self.slots.wait_while(self.lock(), is_full);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.items.push_back(item);
        drop(queue);
        self.items.notify_one();
    }

    /// Takes the first item; blocks while there is none. `None` once the buffer is closed and empty.
    pub fn remove(&self) -> Option<T> {
        let is_empty = |queue: &mut Queue<T>| queue.items.is_empty() && !queue.closed;
        let queue = self.items.wait_while(self.lock(), is_empty);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        let item = queue.items.pop_front();
        drop(queue);
        self.slots.notify_one();
        item
    }

    /// Closes the buffer: nothing will be inserted any more, and consumers that wait are woken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.items.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    #[test]
    fn every_item_is_removed_once_and_in_order() {
        let buffer = Sbuf::new(4);
        let sum = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = 0;
                    while let Some(item) = buffer.remove() {
                        assert!(item > last, "{item} after {last}");
                        last = item;
                        sum.fetch_add(item, Ordering::Relaxed);
                    }
                });
            }
            (1..=1000).for_each(|item| buffer.insert(item));
            buffer.close();
        });
        assert_eq!(sum.into_inner(), 500_500);
    }

    #[test]
    fn whoever_inserts_into_a_full_buffer_waits() {
        let buffer = Sbuf::new(1);
        buffer.insert('a');
        thread::scope(|scope| {
            let inserting = scope.spawn(|| buffer.insert('b'));
            assert_eq!(buffer.remove(), Some('a'));
            assert_eq!(buffer.remove(), Some('b'));
            inserting.join().expect("it was inserted");
        });
        buffer.close();
        assert_eq!(buffer.remove(), None);
    }
}
