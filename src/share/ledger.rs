//! Who has a copy: the addresses that have been seen to have all of a file. Pure.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::cascade_file::Geometry;
use crate::hash::CascadeHash;

/// Addresses that are remembered for a file while they have a part of it.
const MOST_PARTIAL: usize = 4096;

/// The ledger of all files that are shared.
#[derive(Debug, Default)]
pub struct Ledger {
    files: HashMap<CascadeHash, Copies>,
}

/// Who has how much of one file.
#[derive(Debug)]
struct Copies {
    blocks: u32,
    /// Those who have all.
    complete: HashSet<IpAddr>,
    /// Of the others, the blocks that were sent to them.
    partial: HashMap<IpAddr, HashSet<u32>>,
}

impl Ledger {
    /// Opens an account for a file.
    pub fn open(&mut self, hash: CascadeHash, geometry: Geometry) {
        self.files.insert(
            hash,
            Copies {
                blocks: geometry.blocks(),
                complete: HashSet::new(),
                partial: HashMap::new(),
            },
        );
    }

    /// A block was sent to this address. Answers whether it has all now, and had not before.
    pub fn sent(&mut self, to: IpAddr, hash: CascadeHash, block: u32) -> bool {
        let Some(copies) = self.files.get_mut(&hash) else {
            return false;
        };
        let room = copies.partial.len() < MOST_PARTIAL || copies.partial.contains_key(&to);
        if block >= copies.blocks || copies.complete.contains(&to) || !room {
            return false;
        }
        let blocks = copies.partial.entry(to).or_default();
        blocks.insert(block);
        blocks.len() == copies.blocks as usize && copies.completed(to)
    }

    /// This address was seen to have all. Answers whether that is news.
    pub fn complete(&mut self, address: IpAddr, hash: CascadeHash) -> bool {
        self.files
            .get_mut(&hash)
            .is_some_and(|copies| copies.completed(address))
    }

    /// Whether it is known that this address has all.
    pub fn has_all(&self, address: IpAddr, hash: CascadeHash) -> bool {
        let copies = self.files.get(&hash);
        copies.is_some_and(|copies| copies.complete.contains(&address))
    }

    /// How many addresses have all of every file.
    pub fn complete_hosts(&self) -> usize {
        let mut files = self.files.values();
        let Some(first) = files.next() else { return 0 };
        let has_rest = |host: &&IpAddr| files.clone().all(|file| file.complete.contains(*host));
        first.complete.iter().filter(has_rest).count()
    }

    /// How many addresses have all of a file.
    pub fn copies(&self, hash: CascadeHash) -> usize {
        self.files
            .get(&hash)
            .map_or(0, |copies| copies.complete.len())
    }
}

impl Copies {
    fn completed(&mut self, address: IpAddr) -> bool {
        self.partial.remove(&address);
        self.complete.insert(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: CascadeHash = CascadeHash([1; 32]);

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.open(HASH, Geometry::new(10, 4).expect("three blocks"));
        ledger
    }

    fn ip(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    #[test]
    fn an_address_has_all_when_each_block_was_sent_to_it() {
        let mut ledger = ledger();
        assert!(!ledger.sent(ip(1), HASH, 0));
        assert!(!ledger.sent(ip(1), HASH, 0), "twice is once");
        assert!(!ledger.sent(ip(2), HASH, 1), "to another");
        assert!(!ledger.sent(ip(1), HASH, 1));
        assert!(!ledger.sent(ip(1), HASH, 3), "there is no such block");
        assert_eq!(ledger.copies(HASH), 0);
        assert!(ledger.sent(ip(1), HASH, 2));
        assert!(!ledger.sent(ip(1), HASH, 2), "it is known");
        assert_eq!(
            (ledger.copies(HASH), ledger.has_all(ip(1), HASH)),
            (1, true)
        );
        assert!(!ledger.has_all(ip(2), HASH));
    }

    #[test]
    fn an_address_counts_once_however_it_was_seen() {
        let mut ledger = ledger();
        (0..3).for_each(|block| {
            ledger.sent(ip(1), HASH, block);
        });
        assert!(!ledger.complete(ip(1), HASH));
        assert!(ledger.complete(ip(2), HASH));
        assert_eq!(ledger.copies(HASH), 2);
        assert_eq!(ledger.complete_hosts(), 2);
        let other = CascadeHash([2; 32]);
        assert!(!ledger.complete(ip(1), other) && !ledger.sent(ip(1), other, 0));
        assert_eq!(ledger.copies(other), 0);
        ledger.open(other, Geometry::new(10, 4).expect("three blocks"));
        assert!(ledger.complete(ip(2), other));
        assert_eq!(ledger.complete_hosts(), 1);
    }

    #[test]
    fn of_strangers_without_number_only_so_many_are_remembered() {
        let mut ledger = ledger();
        for n in 0..MOST_PARTIAL as u32 + 5 {
            ledger.sent(IpAddr::from(n.to_be_bytes()), HASH, 0);
        }
        assert_eq!(ledger.files[&HASH].partial.len(), MOST_PARTIAL);
    }
}
