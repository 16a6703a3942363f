//! Which peers have workers, and how many.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::work::expected_end;
use super::{Order, Plan, Worker, WorkerId};

/// How long a further worker of a peer may wait for its first answer while another is being served.
const SECOND_SEAT: Duration = Duration::from_secs(2);
/// How long a worker may have nothing to do while another peer waits for its seat.
const IDLE: Duration = Duration::from_secs(1);
/// How long a worker may have no answer while another peer waits for its seat: this, and the time of a block at the
/// rate of a slow line, in bytes a second.
const STALLED: Duration = Duration::from_secs(3);
const SLOW: u64 = 256 << 10;

/// A rate, in bytes a second, that makes the processors work, for every block is hashed twice; and how long it takes to
/// find out whether workers have it.
const FAST: f64 = (128 << 20) as f64;
const FOUND_OUT: Duration = Duration::from_millis(200);

impl Plan {
    /// A worker that holds a seat for nothing: its peer serves another connection of ours only, or has nothing that
    /// is missing while other peers wait for a seat, or is so slow at the end that a long block must change hands.
    pub(super) fn free_a_seat(&mut self, now: Duration) -> Option<Order> {
        if let Some(id) = self.surplus() {
            return Some(self.retire(id));
        }
        let unserved = self
            .workers
            .iter()
            .find(|(_, worker)| self.is_unserved(worker, now));
        if let Some((&id, worker)) = unserved {
            let address = worker.peer;
            let seats = self.seats_taken(address).saturating_sub(1).max(1);
            self.peers.get_mut(&address)?.seats = seats;
            return Some(self.retire(id));
        }
        if let Some(id) = self.superfluous() {
            return Some(self.retire(id));
        }
        if let Some(id) = self.hinders_others(now) {
            return Some(self.retire(id));
        }
        self.take_over(now).map(|id| self.retire(id))
    }

    /// How many workers there may be, if each has another peer.
    fn capacity(&self) -> usize {
        match self.rules.max_workers {
            0 => 0,
            most => most.max(self.rules.spread),
        }
    }

    /// One of more workers than there may be (the supervisor has given some to another file): an idle or else the
    /// slowest one.
    fn surplus(&self) -> Option<WorkerId> {
        let workers = self.workers();
        if workers <= self.rules.max_workers {
            return None;
        }
        let too_many = workers > self.capacity();
        let of_use = |worker: &Worker| (!worker.queue.is_empty(), worker.rate);
        let at_work = self
            .workers
            .iter()
            .filter(|(id, worker)| !worker.retired && (too_many || self.is_further(**id, worker)));
        let least = at_work.min_by(|(_, one), (_, other)| {
            of_use(one)
                .partial_cmp(&of_use(other))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        least.map(|(id, _)| *id)
    }

    /// Where every seat is taken and another peer waits for one: a worker that has nothing to do, or that had no
    /// answer for too long. The peer of the latter comes last from now on.
    fn hinders_others(&mut self, now: Duration) -> Option<WorkerId> {
        let waiting = |(_, taken, failures): (SocketAddr, usize, u32)| taken == 0 && failures == 0;
        if self.workers() < self.capacity() || !self.candidates(now).any(waiting) {
            return None;
        }
        let too_long =
            STALLED + Duration::from_secs(1) * (self.geometry.block_size() / SLOW) as u32;
        let idle_for = |worker: &Worker| now.saturating_sub(worker.last_answer.max(worker.hired));
        let hinders = |worker: &Worker| {
            let patience = if worker.queue.is_empty() {
                IDLE
            } else {
                too_long
            };
            !worker.retired && idle_for(worker) > patience
        };
        let (&id, worker) = self.workers.iter().find(|(_, worker)| hinders(worker))?;
        let (address, stalled) = (worker.peer, !worker.queue.is_empty());
        if stalled && let Some(peer) = self.peers.get_mut(&address) {
            peer.failures += 1;
            peer.not_before = now + STALLED;
        }
        Some(id)
    }

    /// Whether others are known to download the file as well. Then a further worker for a peer brings nothing that its
    /// first does not bring, and takes from others what they would pass on.
    pub(super) fn in_swarm(&self) -> bool {
        self.peers
            .values()
            .any(|peer| !peer.dropped && peer.failures == 0 && peer.knowledge.is_incomplete())
    }

    /// Whether a worker is not the first one of its peer.
    pub(super) fn is_further(&self, id: WorkerId, worker: &Worker) -> bool {
        self.workers
            .range(..id)
            .any(|(_, other)| other.peer == worker.peer && !other.retired)
    }

    /// A further worker of a peer in a swarm, that has nothing to do any more.
    fn superfluous(&self) -> Option<WorkerId> {
        if !self.in_swarm() {
            return None;
        }
        let mut idle = self
            .workers
            .iter()
            .filter(|(_, worker)| !worker.retired && worker.queue.is_empty());
        idle.find(|(id, worker)| self.is_further(**id, worker))
            .map(|(id, _)| *id)
    }

    /// Whether a further worker of a peer waits in vain while another is being served.
    fn is_unserved(&self, worker: &Worker, now: Duration) -> bool {
        let waited = now.saturating_sub(worker.hired);
        let silent = !worker.retired && worker.last_answer <= worker.hired && waited > SECOND_SEAT;
        silent
            && self.workers.values().any(|other| {
                other.peer == worker.peer
                    && !other.retired
                    && other.last_answer > worker.hired
                    && waited
                        > Duration::from_secs_f64(
                            8.0 * self.geometry.block_size() as f64 / other.rate.max(1.0),
                        )
            })
    }

    /// Long blocks are never asked for twice; in the endgame a far slower worker gives its block up instead.
    fn take_over(&self, now: Duration) -> Option<WorkerId> {
        let size = self.geometry.block_size();
        if size <= self.rules.unshared_above || self.blocks.any_pending().is_some() {
            return None;
        }
        let fastest = self
            .workers
            .values()
            .filter(|worker| !worker.retired && worker.queue.is_empty() && worker.rate > 0.0)
            .map(|worker| worker.rate)
            .fold(0.0, f64::max);
        if fastest == 0.0 {
            return None;
        }
        let anew = Duration::from_secs_f64((size as f64 / fastest).min(1e6));
        self.workers
            .iter()
            .filter(|(_, worker)| !worker.retired)
            .filter_map(|(id, worker)| {
                let last = worker.queue.last()?;
                Some((
                    expected_end(worker, worker.queue.len() - 1, last.given, size, now),
                    *id,
                ))
            })
            .filter(|(end, _)| *end > now + anew * 3 + Duration::from_secs(1))
            .max()
            .map(|(_, id)| id)
    }

    /// Whether there is a worker for every processor already, and those are what the download waits for, not the peers.
    /// More workers would then only keep the hash of the whole file from its share of the processors, and everything
    /// waits for that in the end. While it is not known yet how fast the peers are, that is found out first.
    fn keeps_processors_busy(&self, now: Duration) -> bool {
        let at_work = || self.workers.values().filter(|worker| !worker.retired);
        let rate: f64 = at_work().map(|worker| worker.rate).sum();
        let unknown = |worker: &Worker| now.saturating_sub(worker.hired) < FOUND_OUT;
        at_work().count() >= self.rules.cores && (rate > FAST || at_work().any(unknown))
    }

    /// Peers that could be given a worker now; how many they have, and how often they failed of late.
    pub(super) fn candidates(
        &self,
        now: Duration,
    ) -> impl Iterator<Item = (SocketAddr, usize, u32)> + '_ {
        let mut taken: HashMap<SocketAddr, usize> = HashMap::new();
        for worker in self.workers.values().filter(|worker| !worker.retired) {
            *taken.entry(worker.peer).or_default() += 1;
        }
        self.peers.iter().filter_map(move |(address, peer)| {
            let taken = taken.get(address).copied().unwrap_or(0);
            let usable = !peer.dropped && peer.not_before <= now && taken < peer.seats;
            let proven = taken == 0 || (peer.fetched > 0 && peer.failures == 0);
            let useful = peer.knowledge.is_unknown()
                || self
                    .blocks
                    .some_pending(|block| peer.knowledge.may_have(block, now));
            (usable && proven && useful).then_some((*address, taken, peer.failures))
        })
    }

    /// A worker for the peer that has the fewest, and of those for one that failed least.
    pub(super) fn hire(&mut self, now: Duration) -> Option<Order> {
        let workers = self.workers();
        if workers >= self.capacity() || self.blocks.any_pending().is_none() {
            return None;
        }
        let rank = |(_, taken, failures): (SocketAddr, usize, u32)| (taken, failures);
        let best = self.candidates(now).map(rank).min()?;
        let enough = || {
            workers >= self.rules.max_workers || self.in_swarm() || self.keeps_processors_busy(now)
        };
        if best.0 > 0 && enough() {
            return None;
        }
        let equal: Vec<SocketAddr> = self
            .candidates(now)
            .filter(|candidate| rank(*candidate) == best)
            .map(|(address, _, _)| address)
            .collect();
        let address = *equal.get(self.random.usize(..equal.len()))?;
        let id = self.next_worker;
        self.next_worker += 1;
        self.peers.get_mut(&address)?.lacks_file = false;
        self.workers.insert(id, Worker::new(address, now));
        Some(Order::Hire(id, address))
    }
}
