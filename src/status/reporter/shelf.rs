//! Where a reporter leaves the newest registry for its successor: a socket pair of which its keeper holds both ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::passing::{self, Passed};

/// The shelf, which holds one item or none.
#[derive(Debug)]
pub struct Shelf {
    front: OwnedFd,
    back: OwnedFd,
}

impl Shelf {
    /// An empty one.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let (front, back) = passing::pair()?;
        Ok(Self { front, back })
    }

    /// The descriptors needed by the process that uses it.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.front.as_fd(), self.back.as_fd()]
    }

    /// Replaces the item. The shelf is empty at no moment, since the process may be killed at any.
    ///
    /// # Errors
    /// As sendmsg(2) and recvmsg(2).
    pub fn put(&self, passed: &Passed) -> io::Result<()> {
        let descriptors: Vec<_> = passed.descriptors.iter().map(AsFd::as_fd).collect();
        passing::send(self.front.as_fd(), &passed.bytes, &descriptors)?;
        self.drop_all_but(passed.bytes.len())
    }

    /// The item, which stays there.
    ///
    /// # Errors
    /// As recvmsg(2).
    pub fn look(&self) -> io::Result<Option<Passed>> {
        if let Some(first) = passing::peek(self.back.as_fd())? {
            // Registries are all handed over in as many bytes.
            self.drop_all_but(first.bytes.len())?;
        }
        passing::peek(self.back.as_fd())
    }

    /// Takes what was there before the last, which has so many bytes.
    fn drop_all_but(&self, bytes: usize) -> io::Result<()> {
        while passing::waiting(self.back.as_fd())? > bytes {
            passing::receive(self.back.as_fd())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(bytes: &[u8]) -> Passed {
        let (reader, _) = std::io::pipe().expect("a pipe");
        Passed {
            bytes: bytes.into(),
            descriptors: vec![reader.into()],
        }
    }

    #[test]
    fn what_was_put_there_last_stays_there() {
        let shelf = Shelf::new().expect("a pair");
        assert!(shelf.look().expect("a look").is_none());
        for thing in [b"one", b"two"] {
            shelf.put(&passed(thing)).expect("there is room");
            for _ in 0..3 {
                let found = shelf.look().expect("a look").expect("it is there");
                assert_eq!((&*found.bytes, found.descriptors.len()), (&thing[..], 1));
            }
        }
    }

    #[test]
    fn of_two_that_somebody_left_who_was_killed_the_last_is_found() {
        let shelf = Shelf::new().expect("a pair");
        for thing in [b"one", b"two"] {
            let passed = passed(thing);
            let descriptors: Vec<_> = passed.descriptors.iter().map(AsFd::as_fd).collect();
            passing::send(shelf.front.as_fd(), &passed.bytes, &descriptors).expect("room");
        }
        for _ in 0..2 {
            let found = shelf.look().expect("a look").expect("it is there");
            assert_eq!(&*found.bytes, b"two");
        }
    }
}
