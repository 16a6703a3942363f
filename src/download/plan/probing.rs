//! Peers of which nothing is known but that somebody named them.
//!
//! Whoever names them may have meant harm: there may be thousands that refuse, that accept and say nothing, or that never
//! heard of this program. So they share a few workers, and less of them once others have proved themselves, and have
//! turns ([`super::turns`]). Those are tried first that are most likely to be good: the user's own, those that have answered
//! about another file, and those of networks of which fewer have failed; then, by turns, those that trackers name most
//! often and those that are new; and of these the first of a list.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Failure, Peer, Plan, Worker, WorkerId};
use crate::download::knowledge::Knowledge;
use crate::download::report::Listed;
use crate::net::admission::{Admitted, Refused, ports};
use crate::net::source::Source;

/// Where others have sent blocks, those that have not proved themselves have this part of the seats together.
const PART_OF_SEATS: usize = 5;
/// How many peers are remembered: lists are endless.
const MOST_PEERS: usize = 4096;
/// How long nobody else is considered after nobody was admitted.
const PAUSE: Duration = Duration::from_millis(50);
/// How many lists make a difference.
const MOST_LISTS: u32 = 8;

/// What speaks for a peer, the lowest first.
type Rank = (u32, bool, bool, bool, u32, Reverse<u64>, u8);

impl Plan {
    /// The user names a peer.
    pub(super) fn meet_named(&mut self, address: SocketAddr) {
        let new = self.new_peer();
        self.peers.entry(address).or_insert(new).named = true;
        self.next_probe = Duration::ZERO;
    }

    /// A tracker names a peer.
    pub(super) fn meet_listed(&mut self, now: Duration, listed: Listed) {
        let Listed {
            address,
            good,
            place,
            last_seen,
        } = listed;
        if !self.peers.contains_key(&address) {
            if !good && ports::is_of_another_service(address.port()) {
                return;
            }
            if self.peers.len() >= MOST_PEERS && !self.forget_one() {
                return;
            }
            let mut new = self.new_peer();
            new.listed.place = place;
            new.listed.since = now;
            self.peers.insert(address, new);
            self.next_probe = Duration::ZERO;
        }
        if let Some(peer) = self.peers.get_mut(&address) {
            peer.listed.good |= good;
            peer.listed.lists = peer.listed.lists.saturating_add(1);
            peer.listed.place = peer.listed.place.min(place);
            // It has told the tracker again that it is there, after it could not be reached.
            if last_seen > peer.listed.last_seen && peer.listed.last_seen > 0 {
                peer.not_before = peer.not_before.min(now);
                self.next_probe = Duration::ZERO;
            }
            peer.listed.last_seen = peer.listed.last_seen.max(last_seen);
        }
    }

    fn new_peer(&self) -> Peer {
        Peer::new(Knowledge::new(self.geometry.blocks(), self.rules.maps))
    }

    /// Forgets the peer that was tried most often in vain, to make room; says whether there is one.
    fn forget_one(&mut self) -> bool {
        let is_in_use = |address: &SocketAddr| {
            let mut workers = self.workers.values();
            workers.any(|worker| worker.peer == *address)
        };
        let unproved = self.peers.iter().filter(|(address, peer)| {
            // A peer that lied must not come back as another.
            !peer.named && !peer.answered && !peer.dropped && !is_in_use(address)
        });
        let worst = unproved.max_by_key(|(_, peer)| (peer.effort(), Reverse(peer.listed.lists)));
        let worst = worst.map(|(address, _)| *address);
        worst.is_some_and(|address| self.peers.remove(&address).is_some())
    }

    /// A peer has begun to answer.
    pub(super) fn began(&mut self, now: Duration, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&worker.peer) else {
            return;
        };
        worker.began = now;
        if !peer.answered
            && let Some(admitted) = &mut worker.admitted
        {
            self.admission.answered(admitted);
            self.next_probe = Duration::ZERO;
        }
        peer.answered = true;
    }

    /// A worker had to connect again.
    pub(super) fn connected_again(&mut self, now: Duration, id: WorkerId) {
        let now = self.admission_time(now);
        if let Some(admitted) = self.workers.get(&id).and_then(|one| one.admitted.as_ref()) {
            self.admission.connected_again(now, admitted);
        }
    }

    /// A worker failed: where its peer has never answered, that counts for the peer's address.
    pub(super) fn blame(&mut self, now: Duration, id: WorkerId, failure: Failure) {
        if failure == Failure::UnknownHash {
            self.began(now, id);
        }
        if failure == Failure::Silent {
            // It may have been closed, and tried once more.
            self.connected_again(now, id);
        }
        let later = self.admission_time(now);
        let admitted = self.workers.get_mut(&id).and_then(|it| it.admitted.take());
        match (admitted, failure) {
            (None, _) => {}
            (Some(admitted), Failure::Ours | Failure::Shortage) => self.admission.ended(admitted),
            (Some(admitted), _) => self.admission.failed(later, admitted),
        }
    }

    fn admission_time(&self, now: Duration) -> Duration {
        self.ahead + now
    }

    /// The workers whose peers have not proved themselves.
    pub(super) fn unproved_workers(&self) -> impl Iterator<Item = &Worker> {
        let workers = self.workers.values().filter(|worker| !worker.retired);
        workers.filter(|worker| !self.is_proved(worker.peer))
    }

    /// How many workers have peers that have proved themselves.
    pub(super) fn proved_workers(&self) -> usize {
        self.workers() - self.unproved_workers().count()
    }

    pub(super) fn is_proved(&self, address: SocketAddr) -> bool {
        self.peers.get(&address).is_some_and(Peer::is_proved)
    }

    /// Whether there is a seat for a peer that has not proved itself.
    pub(super) fn has_room_for_unproved(&self) -> bool {
        self.workers() < self.capacity() && self.has_room_beside_proved()
    }

    /// Whether there would be one if there were a seat at all.
    pub(super) fn has_room_beside_proved(&self) -> bool {
        let is_good = |peer: &Peer| peer.fetched > 0 && !peer.dropped && peer.failures == 0;
        let capacity = self.capacity();
        let most = match self.peers.values().any(is_good) {
            true => (capacity / PART_OF_SEATS).max(1),
            false => capacity,
        };
        self.unproved_workers().count() < most
    }

    /// The next peer that has not proved itself and may be connected to now.
    pub(super) fn probe(&mut self, now: Duration) -> Option<(SocketAddr, Admitted)> {
        if now < self.next_probe || !self.has_room_for_unproved() {
            return None;
        }
        let failed = self.failed_in_networks();
        let new_first = self.random.bool();
        let rank = |address: SocketAddr| {
            let peer = self.peers.get(&address)?;
            Some(self.rank(address, peer, &failed, new_first))
        };
        let is_unproved = |address: &SocketAddr| !self.is_proved(*address);
        let candidates = self
            .candidates(now)
            .filter(|(address, taken, _)| *taken == 0 && is_unproved(address));
        let mut ranked: Vec<(Rank, SocketAddr)> = candidates
            .filter_map(|(address, ..)| Some((rank(address)?, address)))
            .collect();
        self.random.shuffle(&mut ranked);
        ranked.sort_by_key(|(rank, _)| *rank);
        for (_, address) in ranked {
            match self.admit(now, address) {
                Ok(admitted) => return Some((address, admitted)),
                Err(Refused::All) => break,
                Err(Refused::Address | Refused::Port) => {}
            }
        }
        self.next_probe = now + PAUSE;
        None
    }

    /// Asks whether a peer may be connected to. Whom the user names is free of limits.
    pub(super) fn admit(&self, now: Duration, address: SocketAddr) -> Result<Admitted, Refused> {
        match self.peers.get(&address) {
            Some(peer) if !peer.named && peer.fetched == 0 => {
                let now = self.admission_time(now);
                self.admission.admit(now, address, peer.listed.good)
            }
            _ => Ok(Admitted::named(address)),
        }
    }

    fn rank(
        &self,
        address: SocketAddr,
        peer: &Peer,
        failed: &HashMap<u64, u32>,
        new_first: bool,
    ) -> Rank {
        let listed = peer.listed;
        let listed_first = match new_first {
            // Those of one list are equally new.
            true => listed.since.as_millis() as u64 / 100,
            false => u64::from(listed.lists.min(MOST_LISTS)),
        };
        let in_network = failed.get(&network(address.ip())).copied().unwrap_or(0);
        (
            peer.effort(),
            !peer.named,
            !self.admission.has_answered(address),
            !listed.good,
            in_network,
            Reverse(listed_first),
            listed.place,
        )
    }

    /// Of how many peers of each network nothing good came when they were tried, or not yet.
    fn failed_in_networks(&self) -> HashMap<u64, u32> {
        let mut failed: HashMap<u64, u32> = HashMap::new();
        let tried = self.peers.iter().filter_map(|(address, peer)| {
            let is_tried = !peer.answered && peer.effort() > 0;
            is_tried.then_some(*address)
        });
        for address in tried.chain(self.unproved_workers().map(|worker| worker.peer)) {
            *failed.entry(network(address.ip())).or_default() += 1;
        }
        failed
    }
}

/// The network of an address: the 24 bits of IPv4, or 56 of IPv6, that its neighbours share.
fn network(ip: IpAddr) -> u64 {
    Source::from(ip).0 >> 8
}
