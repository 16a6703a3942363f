//! Which block a worker is given next.

use std::time::Duration;

use super::{Order, Peer, Plan, Queued, Worker, WorkerId};

/// How much a worker is asked for ahead: the work of this time at its rate, and twice what comes in during a round trip,
/// so that this can double from one to the next until the path is full; within the bounds below.
const AHEAD: Duration = Duration::from_millis(250);
const MAX_AHEAD_BYTES: u64 = 4 << 20;
/// A block that is longer than all this is asked for when the one before it is nearly there: so long before its
/// expected end and a round trip, or for this part of the time that a block takes. What waits at a slow peer any longer could have been
/// chosen with better knowledge, and is in the way at the end.
const LEAD: Duration = Duration::from_millis(150);
const LEAD_PART: u32 = 4;
/// PROTOCOL §4: at most 16 requests outstanding with a peer that has not shown the extension.
const MAX_AHEAD_PLAIN: usize = 16;
const MAX_AHEAD_EXTENDED: usize = 256;
/// Who is known to a tracker may not be the only one that begins: for so long not all of them should want the same
/// blocks, those at the beginning. Where blocks come quicker than this it makes no difference.
const COMPANY: Duration = Duration::from_secs(3);
const QUICK: Duration = Duration::from_millis(20);
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
        if self.is_further(id, worker) && self.in_swarm() {
            return None;
        }
        let peer = self.peers.get(&worker.peer)?;
        if worker.queue.len() >= self.room(worker, peer, now) {
            return None;
        }
        let block = self.choose(id, now);
        if let Some(order) = self.ask_map(id, block, now) {
            return Some(order);
        }
        let block = block.or_else(|| self.choose_again(id, now))?;
        self.waste.requests += 1;
        self.assign(id, block, false, now);
        Some(Order::Fetch(id, block))
    }

    /// Asks for the map where that is due. A peer that is not known to know maps may send the block that is named
    /// instead, so that nobody else should be asked for it; otherwise the name is no more than that.
    fn ask_map(&mut self, id: WorkerId, block: Option<u32>, now: Duration) -> Option<Order> {
        let worker = self.workers.get_mut(&id)?;
        let knowledge = &mut self.peers.get_mut(&worker.peer)?.knowledge;
        if !knowledge.wants_map(now, block.is_none()) {
            return None;
        }
        let named = knowledge.knows_maps();
        let block = block.or_else(|| self.blocks.any_pending())?;
        knowledge.map_asked(now);
        worker.asking_map = true;
        self.assign(id, block, named, now);
        Some(Order::AskMap(id, block))
    }

    fn assign(&mut self, id: WorkerId, block: u32, named: bool, now: Duration) {
        if !named {
            self.blocks.requested(block);
        }
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.queue.push(Queued {
                block,
                given: now,
                named,
            });
        }
    }

    /// How many blocks a worker may hold.
    fn room(&self, worker: &Worker, peer: &Peer, now: Duration) -> usize {
        if worker.fetched == 0 {
            return 1;
        }
        let most = if peer.knowledge.knows_maps() {
            MAX_AHEAD_EXTENDED
        } else {
            MAX_AHEAD_PLAIN
        };
        let size = self.geometry.block_size();
        let per_block = time_per_block(worker, size);
        let under_way = worker.path.under_way();
        if per_block > AHEAD && under_way < size {
            let Some(first) = worker.queue.first() else {
                return 1;
            };
            let lead = LEAD.max(per_block / LEAD_PART) + worker.path.round_trip;
            let nearly_there = expected_end(worker, 0, first.given, size, now) < now + lead;
            return if nearly_there { 2 } else { 1 };
        }
        let ahead = (worker.rate * AHEAD.as_secs_f64()) as u64;
        let ahead = (ahead.min(MAX_AHEAD_BYTES) + under_way) / size;
        (usize::try_from(ahead).unwrap_or(most) + 1).clamp(2, most)
    }

    /// The block that should be asked of this worker's peer next.
    fn choose(&mut self, id: WorkerId, now: Duration) -> Option<u32> {
        let worker = self.workers.get(&id)?;
        let address = worker.peer;
        let per_block = time_per_block(worker, self.geometry.block_size());
        let quick = worker.rate > 0.0 && per_block < QUICK;
        let everybody_has_all = self
            .workers
            .values()
            .filter(|worker| !worker.retired)
            .filter_map(|worker| self.peers.get(&worker.peer))
            .all(|peer| peer.knowledge.has_everything());
        let alone = self.own.is_none() || quick || now > COMPANY;
        let knowledge = &self.peers.get(&address)?.knowledge;
        if everybody_has_all
            && alone
            && let Some(first) = self
                .blocks
                .first_pending()
                .filter(|block| knowledge.may_have(*block, now))
        {
            return Some(first);
        }
        let shares = self.shares(address);
        let knowledge = &self.peers.get(&address)?.knowledge;
        self.blocks.rarest_pending(
            &mut self.random,
            |block| knowledge.may_have(block, now),
            |block| shares.rank(block),
        )
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
                .filter(|(_, queued)| !queued.named)
                .map(move |(place, queued)| {
                    (
                        expected_end(other, place, queued.given, size, now),
                        queued.block,
                    )
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
    let since = worker.last_answer.max(given + worker.path.round_trip);
    if worker.rate == 0.0 {
        // Nothing is known of it: it is trusted for a moment; then it may take as long again as it has taken so far.
        let waited = now.saturating_sub(since);
        return if waited < PATIENCE { now } else { now + waited };
    }
    let per_block = time_per_block(worker, size);
    let due = since + per_block * (place as u32 + 1);
    // Overdue: it may take as long again as it is late.
    if due < now { now + (now - due) } else { due }
}

/// How long a block takes at the rate of a worker; no time at all where the rate is not known.
fn time_per_block(worker: &Worker, size: u64) -> Duration {
    if worker.rate == 0.0 {
        return Duration::ZERO;
    }
    Duration::from_secs_f64((size as f64 / worker.rate).min(1e6))
}
