//! Where a reporter leaves the newest registry for its successor: a conversation of which its keeper has both ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::passing::{self, Passed};

/// The shelf: there is one thing on it, or nothing.
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

    /// What the process needs that uses it.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.front.as_fd(), self.back.as_fd()]
    }

    /// Leaves this there, instead of what was there.
    ///
    /// # Errors
    /// As sendmsg(2).
    pub fn put(&self, passed: &Passed) -> io::Result<()> {
        let before = self.take()?;
        let descriptors: Vec<_> = passed.descriptors.iter().map(AsFd::as_fd).collect();
        passing::send(self.front.as_fd(), &passed.bytes, &descriptors)?;
        drop(before);
        Ok(())
    }

    /// What is there, which stays there.
    ///
    /// # Errors
    /// As recvmsg(2) and sendmsg(2).
    pub fn look(&self) -> io::Result<Option<Passed>> {
        let found = self.take()?;
        if let Some(found) = &found {
            self.put(found)?;
        }
        Ok(found)
    }

    fn take(&self) -> io::Result<Option<Passed>> {
        let mut last = None;
        while let Some(passed) = passing::receive(self.back.as_fd())? {
            last = Some(passed);
        }
        Ok(last)
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
}
