//! Which block a worker is given next.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Order, Peer, Plan, Worker, WorkerId};

/// How much a worker is asked for ahead: the work of this time at its rate, within the bounds below.
const AHEAD: Duration = Duration::from_millis(250);
const MAX_AHEAD_BYTES: u64 = 4 << 20;
/// PROTOCOL §4: at most 16 requests outstanding with a peer that has not shown the extension.
const MAX_AHEAD_PLAIN: usize = 16;
const MAX_AHEAD_EXTENDED: usize = 256;
/// How long a worker of which nothing is known is trusted to answer soon.
const PATIENCE: Duration = Duration::from_millis(500);
/// A second request for a block must promise to save at least so much time.
const WORTHWHILE: Duration = Duration::from_millis(200);

impl Plan {
    /// A block for a worker that has room for one.
    pub(super) fn give_work(&mut self, now: Duration) -> Option<Order> {
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        ids.into_iter().find_map(|id| self.give_work_to(id, now))
    }

    fn give_work_to(&mut self, id: WorkerId, now: Duration) -> Option<Order> {
        let worker = self.workers.get(&id)?;
        if worker.retired || worker.paused_until > now || worker.asking_map {
            return None;
        }
        let peer = self.peers.get(&worker.peer)?;
        if worker.queue.len() >= self.room(worker, peer) {
            return None;
        }
        let address = worker.peer;
        let block = self.choose(address, now);
        let wants_map = self
            .peers
            .get(&address)?
            .knowledge
            .wants_map(now, block.is_none());
        if wants_map && let Some(named) = block.or_else(|| self.blocks.any_pending()) {
            self.assign(id, named, now);
            self.workers.get_mut(&id)?.asking_map = true;
            self.peers.get_mut(&address)?.knowledge.map_asked(now);
            return Some(Order::AskMap(id, named));
        }
        let block = block.or_else(|| self.choose_again(id, now))?;
        self.assign(id, block, now);
        Some(Order::Fetch(id, block))
    }

    fn assign(&mut self, id: WorkerId, block: u32, now: Duration) {
        self.blocks.requested(block);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.queue.push((block, now));
        }
    }

    /// How many blocks a worker may hold.
    fn room(&self, worker: &Worker, peer: &Peer) -> usize {
        if worker.fetched == 0 {
            return 1;
        }
        let most = if peer.knowledge.knows_maps() {
            MAX_AHEAD_EXTENDED
        } else {
            MAX_AHEAD_PLAIN
        };
        let size = self.geometry.block_size();
        let ahead = (worker.rate * AHEAD.as_secs_f64()) as u64;
        let ahead = ahead.min(MAX_AHEAD_BYTES) / size;
        (usize::try_from(ahead).unwrap_or(most) + 1).clamp(2, most)
    }

    /// The block that should be asked of this peer next.
    fn choose(&mut self, address: SocketAddr, now: Duration) -> Option<u32> {
        let everybody_has_all = self
            .workers
            .values()
            .filter(|worker| !worker.retired)
            .filter_map(|worker| self.peers.get(&worker.peer))
            .all(|peer| peer.knowledge.has_everything());
        let knowledge = &self.peers.get(&address)?.knowledge;
        if everybody_has_all
            && let Some(first) = self
                .blocks
                .first_pending()
                .filter(|block| knowledge.may_have(*block, now))
        {
            return Some(first);
        }
        self.blocks
            .rarest_pending(&mut self.random, |block| knowledge.may_have(block, now))
    }

    /// In the endgame: a block that a slower worker holds, for a worker that has nothing else to do.
    fn choose_again(&self, id: WorkerId, now: Duration) -> Option<u32> {
        let worker = self.workers.get(&id)?;
        let peer = self.peers.get(&worker.peer)?;
        if !worker.queue.is_empty() || worker.rate == 0.0 || self.blocks.any_pending().is_some() {
            return None;
        }
        let size = self.geometry.block_size();
        if size > self.rules.unshared_above {
            return None;
        }
        let own = Duration::from_secs_f64((size as f64 / worker.rate).min(1e6));
        let others = self
            .workers
            .iter()
            .filter(|(other, state)| **other != id && !state.retired);
        let candidates = others.flat_map(|(_, other)| {
            other
                .queue
                .iter()
                .enumerate()
                .map(move |(place, (block, given))| {
                    (expected_end(other, place, *given, size, now), *block)
                })
        });
        candidates
            .filter(|(end, block)| {
                // Worth a second request only where this worker should win clearly.
                *end > now + (own * 2).max(WORTHWHILE)
                    && self.blocks.is_asked_for_once(*block)
                    && peer.knowledge.may_have(*block, now)
            })
            .max()
            .map(|(_, block)| block)
    }
}

/// When a worker should have fetched the block at `place` in its queue, at the rate that it had so far. A worker that
/// has stopped looks slower with every moment.
pub(super) fn expected_end(
    worker: &Worker,
    place: usize,
    given: Duration,
    size: u64,
    now: Duration,
) -> Duration {
    let since = given.max(worker.last_answer);
    if worker.rate == 0.0 {
        // Nothing is known of it: it is trusted for a moment; then it may take as long again as it has taken so far.
        let waited = now.saturating_sub(since);
        return if waited < PATIENCE { now } else { now + waited };
    }
    let per_block = Duration::from_secs_f64((size as f64 / worker.rate).min(1e6));
    let due = since + per_block * (place as u32 + 1);
    // Overdue: it may take as long again as it is late.
    if due < now { now + (now - due) } else { due }
}
