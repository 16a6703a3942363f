//! The registry as status reports need it: all files, and their peers.
//!
//! Unlike a view it needs no key, and so it can be passed to a process that was forked before the registry was made.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::entries::{Entries, Limits, Number};
use super::figures::Figures;
use super::record::CHUNK_RECORDS;
use crate::hash::CascadeHash;
use crate::net::admission::ports;
use crate::sys::passing::{self, Passed};
use crate::wire::tracker::PeerRecord;

/// Who is registered.
#[derive(Debug, Clone)]
pub struct Roll(pub(super) Arc<Entries>);

/// A file, and who serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollFile {
    /// Its name on the network.
    pub hash: CascadeHash,
    /// What it is called here, where that is known.
    pub name: Option<String>,
    /// How many blocks it has, where that is known.
    pub blocks: Option<u32>,
    /// How many peers are registered for it that have not expired.
    pub peers: u32,
    /// Those of them for which the operator vouches.
    pub good: u32,
    /// The peers, as many as were asked for: good ones first, then by address.
    pub registered: Vec<RollPeer>,
}

/// A peer of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollPeer {
    /// As clients see it.
    pub record: PeerRecord,
    /// Whether it was registered from its own address.
    pub own: bool,
}

/// A peer that may be asked about a file, and how many blocks that has, where it is known.
pub type Confirmed = ((CascadeHash, SocketAddrV4), Option<u32>);

/// Limits of what is listed.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Files: those that have the most peers.
    pub files: usize,
    /// Peers of each.
    pub peers: usize,
    /// Peers in all.
    pub all_peers: usize,
}

impl Roll {
    /// How full the registry is.
    pub fn figures(&self) -> Figures {
        Figures {
            files: (!self.is_open()).then(|| self.tracked()),
            peers: self.0.number(Number::Records),
            capacity: self.0.limits.capacity,
        }
    }

    /// Whether this is the same registry.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether any file may come.
    pub fn is_open(&self) -> bool {
        self.0.limits.open
    }

    /// Seconds after which a peer is forgotten.
    pub fn ttl(&self) -> u32 {
        self.0.limits.ttl
    }

    /// How many files there are: those that are named, or those that somebody serves.
    pub fn tracked(&self) -> u64 {
        self.files_in_use().count() as u64
    }

    /// Files, those with the most peers first, and their peers.
    pub fn files(&self, now: u32, most: Most) -> Vec<RollFile> {
        let mut chosen = self.choose(most.files);
        let mut room = most.all_peers;
        for id in 0..self.0.number(Number::Chunks).saturating_mul(CHUNK_RECORDS) {
            let Some((file, peer)) = self.peer(id, now) else {
                continue;
            };
            let Some(chosen) = chosen.get_mut(&file) else {
                continue;
            };
            chosen.peers += 1;
            chosen.good += u32::from(peer.record.good);
            if room > 0 && chosen.registered.len() < most.peers {
                chosen.registered.push(peer);
                room -= 1;
            }
        }
        let mut files: Vec<RollFile> = chosen.into_values().collect();
        files.sort_by_key(|file| (Reverse(file.peers), file.hash));
        for file in &mut files {
            let order = |peer: &RollPeer| (!peer.record.good, peer.record.address);
            file.registered.sort_by_key(order);
        }
        files
    }

    /// Peers for whose address there is more than a stranger's word: those that registered themselves from there, and
    /// those for which the operator vouches; each with its file, and how many blocks that has. So many of one address,
    /// and so many in all. Ports of other services are none of a peer that nobody vouches for.
    pub fn confirmed(&self, now: u32, per_address: usize, most: usize) -> Vec<Confirmed> {
        let mut of_address: HashMap<Ipv4Addr, usize> = HashMap::new();
        let ids = 0..self.0.number(Number::Chunks).saturating_mul(CHUNK_RECORDS);
        let confirmed = ids.filter_map(|id| self.peer(id, now));
        let is_peer = |port| !ports::is_of_another_service(port);
        let confirmed = confirmed.filter(|(_, peer)| {
            peer.record.good || (peer.own && is_peer(peer.record.address.port()))
        });
        let few = confirmed.filter(|(_, peer)| {
            let of_address = of_address.entry(*peer.record.address.ip()).or_default();
            *of_address += 1;
            *of_address <= per_address
        });
        let with_file = few.filter_map(|(file, peer)| {
            let look = || (self.0.file(file), self.0.blocks(file));
            let (hash, blocks) = self.0.sequence.read(look).ok()?;
            Some(((hash, peer.record.address), blocks))
        });
        with_file.take(most).collect()
    }

    /// The files that have the most peers, without these.
    fn choose(&self, most: usize) -> BTreeMap<u32, RollFile> {
        let mut heap = BinaryHeap::new();
        for file in self.files_in_use() {
            heap.push(Reverse((self.0.records_of_file(file), file)));
            if heap.len() > most {
                heap.pop();
            }
        }
        let empty = |file| RollFile {
            hash: self.0.file(file),
            name: self.0.name(file),
            blocks: self.0.blocks(file),
            peers: 0,
            good: 0,
            registered: Vec::new(),
        };
        heap.into_iter()
            .filter_map(|Reverse((_, file))| {
                let look = || empty(file);
                Some((file, self.0.sequence.read(look).ok()?))
            })
            .collect()
    }

    fn files_in_use(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.0.limits.files).filter(|file| self.0.is_tracked(*file))
    }

    /// The peer with this id, and its file, unless it has expired.
    fn peer(&self, id: u32, now: u32) -> Option<(u32, RollPeer)> {
        let look = || {
            let record = self.0.record(id)?;
            let list = self.0.list_of(id);
            let peer = RollPeer {
                record: record.shown(list),
                own: IpAddr::from(self.0.source(record.source)) == *record.peer.ip(),
            };
            Some((list.file, peer))
        };
        let found = self.0.sequence.read(look).ok()??;
        (!self.0.is_expired(found.1.record.last_seen, now)).then_some(found)
    }
}

/// Words of the message with which a roll is handed over.
const WORDS: usize = 5;

impl Roll {
    /// Hands it over.
    ///
    /// # Errors
    /// Where nobody will take it.
    pub fn send(&self, to: BorrowedFd<'_>) -> io::Result<()> {
        let Limits {
            capacity,
            chunks,
            files,
            ttl,
            open,
        } = self.0.limits;
        let words: [u32; WORDS] = [capacity, chunks, files, ttl, open.into()];
        let message = words.map(u32::to_ne_bytes).concat();
        let descriptors = self.0.descriptors().ok_or(io::ErrorKind::Unsupported)?;
        passing::send(to, &message, &descriptors)
    }

    /// What was handed over.
    ///
    /// # Errors
    /// Where it is no roll.
    pub fn taken(passed: Passed) -> io::Result<Self> {
        let nonsense = || io::Error::other("the message makes no sense");
        let (words, []) = passed.bytes.as_chunks::<4>() else {
            return Err(nonsense());
        };
        let words = <[[u8; 4]; WORDS]>::try_from(words).map_err(|_| nonsense())?;
        let [capacity, chunks, files, ttl, open] = words.map(u32::from_ne_bytes);
        let descriptors = <[OwnedFd; 6]>::try_from(passed.descriptors).map_err(|_| nonsense())?;
        let limits = Limits {
            capacity,
            chunks,
            files,
            ttl,
            open: open != 0,
        };
        Ok(Self(Arc::new(Entries::passed(limits, descriptors)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::registry::{Description, Registry, Tracked};
    use std::hash::RandomState;
    use std::os::fd::AsFd;

    const MOST: Most = Most {
        files: 10,
        peers: 10,
        all_peers: 100,
    };

    fn hash(number: u8) -> CascadeHash {
        CascadeHash([number; 32])
    }

    fn registry(tracked: &Tracked) -> Registry {
        Registry::new(100, 60, tracked, RandomState::new()).expect("memory")
    }

    /// Registers this many peers from addresses of their own, the first of them as a good one.
    fn register(registry: &mut Registry, file: u8, peers: u8, now: u32) {
        for number in 0..peers {
            let peer = SocketAddrV4::new([192, 0, 2, number].into(), 9000);
            registry
                .subscribe(
                    &hash(file),
                    peer,
                    (*peer.ip()).into(),
                    number == 0 && file == 1,
                    now,
                )
                .expect("there is room");
        }
    }

    #[test]
    fn all_files_that_are_named_are_there_those_with_the_most_peers_first() {
        let named = Tracked::Named([1, 2, 3].map(hash).into());
        let described = [(1, 80), (9, 7)].map(|(file, blocks)| {
            let name = "é".repeat(file as usize * 100);
            (hash(file), Description { blocks, name })
        });
        let described_before = described.into();
        let mut registry = registry(&named).with_descriptions(&described_before);
        register(&mut registry, 1, 2, 1000);
        register(&mut registry, 2, 9, 1000);
        let roll = registry.view().roll();
        let files = roll.files(1030, MOST);
        let seen: Vec<_> = files
            .iter()
            .map(|file| (file.hash, file.blocks, file.peers, file.good))
            .collect();
        assert_eq!(
            seen,
            [
                (hash(2), None, 9, 0),
                (hash(1), Some(80), 2, 1),
                (hash(3), None, 0, 0)
            ]
        );
        // A long name is cut between two characters.
        let name = |file: &RollFile| file.name.as_ref().map(|name| name.chars().count());
        assert_eq!(
            files.iter().map(name).collect::<Vec<_>>(),
            [None, Some(63), None]
        );
        registry.describe(
            &[(
                hash(2),
                Description {
                    blocks: 9,
                    name: "x".into(),
                },
            )]
            .into(),
        );
        let names: Vec<_> = roll
            .files(1030, MOST)
            .into_iter()
            .map(|file| file.name)
            .collect();
        assert_eq!(names, [Some("x".into()), None, None]);
        registry.describe(&described_before);
        assert!(files[1].registered[0].record.good && files[1].registered[0].own);
        assert_eq!(files[1].registered.len(), 2);
        assert_eq!((roll.tracked(), roll.figures().peers), (3, 11));
        assert!(
            roll.files(1060, MOST).iter().all(|file| file.peers == 0),
            "all have expired"
        );
    }

    #[test]
    fn no_more_is_told_than_was_asked_for() {
        let mut registry = registry(&Tracked::Any);
        for (file, peers) in [(1, 2), (2, 9), (3, 5)] {
            register(&mut registry, file, peers, 1000);
        }
        let roll = registry.view().roll();
        assert_eq!((roll.tracked(), roll.figures().files), (3, None));
        let most = Most {
            files: 2,
            peers: 4,
            all_peers: 6,
        };
        let files = roll.files(1000, most);
        let seen: Vec<_> = files.iter().map(|file| (file.hash, file.peers)).collect();
        assert_eq!(
            seen,
            [(hash(2), 9), (hash(3), 5)],
            "those with the most peers"
        );
        let listed = files.iter().map(|file| file.registered.len());
        assert!(listed.clone().all(|count| count <= 4) && listed.sum::<usize>() == 6);
    }

    #[test]
    fn who_registers_another_is_not_that_one() {
        let mut registry = registry(&Tracked::Any);
        let peer = SocketAddrV4::new([192, 0, 2, 1].into(), 9000);
        let other = IpAddr::from([192, 0, 2, 2]);
        registry
            .subscribe(&hash(1), peer, other, false, 1000)
            .expect("room");
        assert!(!registry.view().roll().files(1000, MOST)[0].registered[0].own);
        assert!(registry.view().roll().confirmed(1000, 9, 9).is_empty());
        registry
            .subscribe(&hash(1), peer, (*peer.ip()).into(), false, 1000)
            .expect("room");
        let confirmed = [((hash(1), peer), None)];
        assert_eq!(registry.view().roll().confirmed(1000, 9, 9), confirmed);
        // Another one's renewal changes nothing about that.
        registry
            .subscribe(&hash(1), peer, other, false, 1000)
            .expect("room");
        assert_eq!(registry.view().roll().confirmed(1000, 9, 9), confirmed);
    }

    #[test]
    fn nobody_fills_the_room_of_those_who_registered_themselves() {
        let mut registry = registry(&Tracked::Any);
        let of = |address: [u8; 4], port| SocketAddrV4::new(address.into(), port);
        // Strangers' addresses, and many ports of one's own: all of that before the honest one.
        let liar = IpAddr::from([192, 0, 2, 9]);
        for port in 9001..=9008_u16 {
            for address in [[198, 18, 0, 1], [192, 0, 2, 9]] {
                let file = hash(port as u8 % 4);
                let subscribed = registry.subscribe(&file, of(address, port), liar, false, 1000);
                subscribed.expect("there is room");
            }
        }
        register(&mut registry, 1, 1, 1000);
        let found = registry.view().roll().confirmed(1000, 5, 10);
        assert_eq!(found.len(), 6);
        assert!(found.contains(&((hash(1), of([192, 0, 2, 0], 9000)), None)));
        assert_eq!(registry.view().roll().confirmed(1000, 5, 3).len(), 3);
    }

    #[test]
    fn a_roll_that_is_handed_over_shows_what_comes_later() {
        let (ours, theirs) = passing::pair().expect("a pair");
        let mut registry = registry(&Tracked::Any);
        registry
            .view()
            .roll()
            .send(ours.as_fd())
            .expect("it is sent");
        let passed = passing::receive(theirs.as_fd()).expect("a message");
        let roll = Roll::taken(passed.expect("one")).expect("a roll");
        register(&mut registry, 7, 3, 1000);
        assert_eq!(
            roll.files(1000, MOST),
            registry.view().roll().files(1000, MOST)
        );
        assert_eq!(roll.figures(), registry.view().roll().figures());
        passing::send(ours.as_fd(), b"nonsense", &[]).expect("it is sent");
        let passed = passing::receive(theirs.as_fd()).expect("a message");
        assert!(Roll::taken(passed.expect("one")).is_err());
    }
}
