//! Which peers have workers, and how many.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::work::expected_end;
use super::{Order, Plan, Worker, WorkerId};

/// How long a further worker of a peer may wait for its first answer while another is being served.
const SECOND_SEAT: Duration = Duration::from_secs(2);

impl Plan {
    /// A worker that holds a seat for nothing: its peer serves another connection of ours only, or has nothing that
    /// is missing while other peers wait for a seat, or is so slow at the end that a long block must change hands.
    pub(super) fn free_a_seat(&mut self, now: Duration) -> Option<Order> {
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
        let crowded =
            self.workers() >= self.rules.max_workers && self.candidates(now).next().is_some();
        let idle = self.workers.iter().find(|(_, worker)| {
            crowded
                && !worker.retired
                && worker.queue.is_empty()
                && now.saturating_sub(worker.last_answer.max(worker.hired)) > Duration::from_secs(1)
        });
        if let Some((&id, _)) = idle {
            return Some(self.retire(id));
        }
        self.take_over(now).map(|id| self.retire(id))
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
                let (_, given) = worker.queue.last()?;
                Some((
                    expected_end(worker, worker.queue.len() - 1, *given, size, now),
                    *id,
                ))
            })
            .filter(|(end, _)| *end > now + anew * 3 + Duration::from_secs(1))
            .max()
            .map(|(_, id)| id)
    }

    /// Peers that could be given a worker now.
    pub(super) fn candidates(
        &self,
        now: Duration,
    ) -> impl Iterator<Item = (SocketAddr, usize)> + '_ {
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
            (usable && proven && useful).then_some((*address, taken))
        })
    }

    /// A worker for the peer that has the fewest.
    pub(super) fn hire(&mut self, now: Duration) -> Option<Order> {
        if self.workers() >= self.rules.max_workers || self.blocks.any_pending().is_none() {
            return None;
        }
        let fewest = self.candidates(now).map(|(_, taken)| taken).min()?;
        let equal: Vec<SocketAddr> = self
            .candidates(now)
            .filter(|(_, taken)| *taken == fewest)
            .map(|(address, _)| address)
            .collect();
        let address = *equal.get(self.random.usize(..equal.len()))?;
        let id = self.next_worker;
        self.next_worker += 1;
        self.peers.get_mut(&address)?.lacks_file = false;
        let worker = Worker {
            peer: address,
            hired: now,
            queue: Vec::new(),
            fetched: 0,
            last_answer: Duration::ZERO,
            rate: 0.0,
            misses: 0,
            paused_until: Duration::ZERO,
            asking_map: false,
            retired: false,
        };
        self.workers.insert(id, worker);
        Some(Order::Hire(id, address))
    }
}
