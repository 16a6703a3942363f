//! Turns of peers that have proved nothing: one that is silent makes room for the next, and has its next turn later, which
//! is longer: slow programs are still used when nobody is better. Nor does a worker that waits keep a block from others.

use std::net::IpAddr;
use std::time::Duration;

use super::{Failure, Peer, Plan, Worker, WorkerId};
use crate::net::admission::PORTS_PER_ADDRESS;

/// How long the beginning of an answer is waited for while others wait, the first time; it doubles with each turn.
const FIRST_TURN: Duration = Duration::from_secs(2);
/// It doubles so often at most. A turn of this length counts as a failure: nobody has failed before 10 s
/// (cascade-protocol(7), Other implementations).
const LONGER_TURNS: u32 = 3;
/// How long a peer that never sent a block is the only one that is asked for what it is asked for; and where nothing else
/// is left to ask for.
const SHARED_AFTER: Duration = Duration::from_secs(1);
const LAST_SHARED_AFTER: Duration = Duration::from_millis(100);

impl Plan {
    /// Others may be asked for the block for which an unproved peer is waited for. A long one cannot be asked for twice.
    pub(super) fn share_awaited_blocks(&mut self, now: Duration) {
        if self.geometry.block_size() > self.rules.unshared_above {
            return;
        }
        let shared_after = match self.blocks.any_pending() {
            Some(_) => SHARED_AFTER,
            None => LAST_SHARED_AFTER,
        };
        for worker in self.workers.values_mut().filter(|worker| !worker.retired) {
            let proved = self
                .peers
                .get(&worker.peer)
                .is_some_and(|peer| peer.fetched > 0);
            let since = worker.last_answer.max(worker.began);
            for queued in worker.queue.iter_mut().filter(|queued| !queued.named) {
                if !proved && now.saturating_sub(since.max(queued.given)) > shared_after {
                    queued.named = true;
                    self.blocks.released(queued.block);
                }
            }
        }
    }

    /// A worker whose peer has proved nothing and is silent, while another peer waits for its seat: the turn is over.
    pub(super) fn end_a_turn(&mut self, now: Duration) -> Option<WorkerId> {
        let overdue: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, worker)| self.is_overdue(worker, now))
            .map(|(id, _)| *id)
            .collect();
        if overdue.is_empty() {
            return None;
        }
        let waiting: Vec<(IpAddr, u32)> = self
            .candidates(now)
            .filter(|(_, taken, _)| *taken == 0)
            .filter_map(|(address, ..)| Some((address.ip(), self.peers.get(&address)?.effort())))
            .collect();
        // Without a block to be asked for nobody is given a seat.
        let is_full = !self.has_room_for_unproved() || self.blocks.any_pending().is_none();
        let id = overdue.into_iter().find(|id| {
            let Some(worker) = self.workers.get(id) else {
                return false;
            };
            // After this turn it has been tried once more.
            let effort = self.peers.get(&worker.peer).map_or(0, Peer::effort) + 1;
            let ip = worker.peer.ip();
            let address_is_full = || {
                let same = self
                    .unproved_workers()
                    .filter(|worker| worker.peer.ip() == ip);
                same.count() >= PORTS_PER_ADDRESS
            };
            waiting.iter().any(|(waiting, less)| {
                *less <= effort && (is_full || (*waiting == ip && address_is_full()))
            })
        })?;
        self.turn_is_over(now, id);
        Some(id)
    }

    /// Whether an answer is awaited that has not begun in time, or has not come far, of a peer that never sent a block.
    fn is_overdue(&self, worker: &Worker, now: Duration) -> bool {
        let peer = self.peers.get(&worker.peer);
        let Some(peer) = peer.filter(|peer| peer.fetched == 0) else {
            return false;
        };
        let Some(first) = worker.queue.first().filter(|_| !worker.retired) else {
            return false;
        };
        let owed = first.given.max(worker.last_answer);
        let since = owed.max(worker.began);
        let of_block = match worker.began > owed {
            true => self.time_of_slow_block(),
            false => Duration::ZERO,
        };
        now.saturating_sub(since) > turn(peer.turns) + of_block
    }

    /// The peer has its next turn later.
    fn turn_is_over(&mut self, now: Duration, id: WorkerId) {
        let random = self.random.f64();
        self.blame(now, id, Failure::Unreachable);
        let Some((_, peer)) = self.worker_and_peer(id) else {
            return;
        };
        let pause = turn(peer.turns);
        peer.not_before = now + pause.mul_f64(0.75 + random / 2.0);
        peer.failures += u32::from(peer.turns >= LONGER_TURNS);
        peer.turns += 1;
        if peer.turns.is_multiple_of(2) {
            // In every other turn it is asked for a block plainly: the request for a map may be what it does not answer.
            peer.knowledge.map_unanswered();
        }
    }
}

/// How long a turn is.
fn turn(turns: u32) -> Duration {
    FIRST_TURN * 2u32.pow(turns.min(LONGER_TURNS))
}
