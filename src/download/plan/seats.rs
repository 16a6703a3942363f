//! Which peers have workers, and how many.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::work::expected_end;
use super::{Order, Peer, Plan, Worker, WorkerId};
use crate::net::admission::Admitted;

/// How long a further worker of a peer may wait for its first answer while another is being served.
const SECOND_SEAT: Duration = Duration::from_secs(2);
/// Connecting, the map and a block take so many round trips; one may be lost.
const ROUND_TRIPS: u32 = 4;
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
        if let Some(id) = self.end_a_turn(now) {
            return Some(self.retire(id));
        }
        if let Some(id) = self.hinders_others(now) {
            return Some(self.retire(id));
        }
        self.take_over(now).map(|id| self.retire(id))
    }

    /// How many workers there may be, if each has another peer.
    pub(super) fn capacity(&self) -> usize {
        match self.rules.max_workers {
            0 => 0,
            most => most.max(self.rules.spread),
        }
    }

    /// One of more workers than there may be (the supervisor has given some to another file): an idle or else the
    /// slowest one.
    fn surplus(&self) -> Option<WorkerId> {
        let too_many = self.workers() > self.capacity();
        if !too_many && self.proved_workers() <= self.rules.max_workers {
            return None;
        }
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
        if self.workers() < self.capacity() {
            return None;
        }
        let too_long = STALLED + self.time_of_slow_block();
        let is_late = |worker: &Worker| {
            let patience = match worker.queue.is_empty() {
                true => IDLE,
                false => too_long,
            };
            let idle_for = now.saturating_sub(worker.last_answer.max(worker.hired));
            !worker.retired && idle_for > patience
        };
        let late = |proved: bool| {
            let mut workers = self.workers.iter().filter(|(_, worker)| is_late(worker));
            // Silent ones that have not proved themselves have turns.
            let late = workers.find(|(_, worker)| match self.is_proved(worker.peer) {
                true => proved,
                false => !proved && worker.queue.is_empty(),
            });
            late.map(|(id, _)| *id)
        };
        let has_room = self.has_room_beside_proved();
        let id = late(true)
            .filter(|_| {
                let mut waiting = self.candidates(now);
                waiting.any(|(address, taken, failures)| {
                    taken == 0 && failures == 0 && (has_room || self.is_proved(address))
                })
            })
            .or_else(|| late(false).filter(|_| self.candidates(now).any(|it| it.1 == 0)))?;
        let (worker, peer) = self.worker_and_peer(id)?;
        if !worker.queue.is_empty() {
            peer.failures += 1;
            peer.not_before = now + STALLED;
        }
        Some(id)
    }

    /// How long a block takes on a slow line.
    pub(super) fn time_of_slow_block(&self) -> Duration {
        Duration::from_secs(1) * (self.geometry.block_size() / SLOW) as u32
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
                        ) + ROUND_TRIPS * other.path.round_trip
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
        let at_work = || {
            let workers = self.workers.values().filter(|worker| !worker.retired);
            workers.filter(|worker| self.is_proved(worker.peer))
        };
        let rate: f64 = at_work().map(|worker| worker.rate).sum();
        let unknown = |worker: &Worker| now.saturating_sub(worker.hired) < FOUND_OUT;
        at_work().count() >= self.rules.cores && (rate > FAST || at_work().any(unknown))
    }

    /// Whether it will be known in a moment of another peer whether it answers.
    fn finds_out(&self, now: Duration) -> bool {
        self.unproved_workers()
            .any(|worker| now.saturating_sub(worker.hired) < FOUND_OUT)
    }

    /// Peers that could be given a worker now; how many they have, and how often they failed of late.
    pub(super) fn candidates(
        &self,
        now: Duration,
    ) -> impl Iterator<Item = (SocketAddr, usize, u32)> + '_ {
        self.candidates_among(now, |_| true)
    }

    /// The same of those that have proved themselves.
    fn proved_candidates(
        &self,
        now: Duration,
    ) -> impl Iterator<Item = (SocketAddr, usize, u32)> + '_ {
        self.candidates_among(now, Peer::is_proved)
    }

    fn candidates_among<'a>(
        &'a self,
        now: Duration,
        among: impl Fn(&Peer) -> bool + 'a,
    ) -> impl Iterator<Item = (SocketAddr, usize, u32)> + 'a {
        let mut taken: HashMap<SocketAddr, usize> = HashMap::new();
        for worker in self.workers.values().filter(|worker| !worker.retired) {
            *taken.entry(worker.peer).or_default() += 1;
        }
        let peers = self.peers.iter().filter(move |(_, peer)| among(peer));
        peers.filter_map(move |(address, peer)| {
            if peer.dropped || peer.not_before > now {
                return None;
            }
            let taken = taken.get(address).copied().unwrap_or(0);
            let proven = taken == 0 || (peer.fetched > 0 && peer.failures == 0);
            let usable = proven && taken < peer.seats;
            let useful = || {
                let may_have = |block| peer.knowledge.may_have(block, now);
                peer.knowledge.is_unknown() || self.blocks.some_pending(may_have)
            };
            (usable && useful()).then_some((*address, taken, peer.failures))
        })
    }

    /// A worker for a peer that has proved itself and has none; otherwise for one that has not; otherwise for the proved one
    /// that has the fewest.
    pub(super) fn hire(&mut self, now: Duration) -> Option<Order> {
        if self.workers() >= self.capacity() || self.blocks.any_pending().is_none() {
            return None;
        }
        let rank = |(_, taken, failures): (SocketAddr, usize, u32)| (taken, failures);
        let best = self.proved_candidates(now).map(rank).min();
        if best.is_none_or(|(taken, _)| taken > 0)
            && let Some((address, admitted)) = self.probe(now)
        {
            return self.hire_for(now, address, admitted);
        }
        let best = best?;
        let enough = || {
            self.proved_workers() >= self.rules.max_workers
                || self.in_swarm()
                || self.finds_out(now)
                || self.keeps_processors_busy(now)
        };
        if best.0 > 0 && enough() {
            return None;
        }
        let equal: Vec<SocketAddr> = self
            .proved_candidates(now)
            .filter(|candidate| rank(*candidate) == best)
            .map(|(address, _, _)| address)
            .collect();
        let address = *equal.get(self.random.usize(..equal.len()))?;
        let admitted = self.admit(now, address).ok()?;
        self.hire_for(now, address, admitted)
    }

    fn hire_for(&mut self, now: Duration, peer: SocketAddr, admitted: Admitted) -> Option<Order> {
        let id = self.next_worker;
        self.next_worker += 1;
        self.peers.get_mut(&peer)?.lacks_file = false;
        self.workers.insert(id, Worker::new(peer, admitted, now));
        Some(Order::Hire(id, peer))
    }
}
