//! Workers that end, and what follows for their peers.

use std::time::Duration;

use super::{Failure, Order, Plan, WorkerId};

/// A peer that failed is tried again after so long, at first and at most; it doubles.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How long a peer waits for which this host lacked something.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(1);

impl Plan {
    /// The worker can do nothing more with its peer.
    pub(super) fn failed(&mut self, now: Duration, id: WorkerId, failure: Failure) {
        self.give_back(id);
        self.blame(now, id, failure);
        let random = self.random.f64();
        let Some((worker, peer)) = self.worker_and_peer(id) else {
            return;
        };
        worker.retired = true;
        peer.knowledge.map_unanswered();
        match failure {
            Failure::Lied => peer.dropped = true,
            Failure::UnknownHash => {
                peer.lacks_file = true;
                peer.not_before = now + LONGEST_BACKOFF;
            }
            // Several workers of a peer that has gone notice it one after the other: that is one failure.
            _ if now < peer.not_before => {}
            // Whom else would be asked lacks as much.
            Failure::Shortage => peer.not_before = now + SHORTAGE_PAUSE,
            Failure::Unreachable | Failure::Silent | Failure::Ours => {
                let backoff = FIRST_BACKOFF * (1 << peer.failures.min(10));
                peer.failures += 1;
                peer.not_before = now + backoff.min(LONGEST_BACKOFF).mul_f64(0.75 + random / 2.0);
            }
        }
    }

    /// The worker's process is gone.
    pub(super) fn died(&mut self, now: Duration, id: WorkerId) {
        let worker = self.workers.get(&id);
        if worker.is_some_and(|worker| !worker.retired) {
            self.failed(now, id, Failure::Ours);
        }
        if let Some(worker) = self.workers.remove(&id)
            && let Some(admitted) = worker.admitted
        {
            self.admission.ended(admitted);
        }
    }

    /// The worker was never there.
    pub(super) fn not_started(&mut self, now: Duration, id: WorkerId) {
        self.failed(now, id, Failure::Shortage);
        self.died(now, id);
    }

    /// Puts a worker's blocks back among those that nobody was asked for.
    fn give_back(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        for queued in std::mem::take(&mut worker.queue) {
            if !queued.named {
                self.waste.in_vain += u64::from(self.blocks.is_present(queued.block));
                self.blocks.released(queued.block);
            }
        }
    }

    pub(super) fn retire(&mut self, id: WorkerId) -> Order {
        self.give_back(id);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.retired = true;
        }
        Order::Retire(id)
    }

    pub(super) fn retire_any(&mut self) -> Option<Order> {
        let mut workers = self.workers.iter();
        let id = workers.find_map(|(id, worker)| (!worker.retired).then_some(*id))?;
        Some(self.retire(id))
    }
}
