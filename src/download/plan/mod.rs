//! The scheduler of a download: which block is asked of which peer, and when. Pure: it knows no socket, process or
//! clock; time is an argument, counted from the start of the download.
//!
//! The rules, in the order in which they matter:
//!
//! 1. A peer that lied is not asked again. One that cannot be reached is tried again after a while, longer each time.
//! 2. Workers are spread over the peers: the peer with the fewest gets the next. A further worker for a peer waits
//!    until the first has had a block from it. Peers that have answered come first; the others are connected to as far
//!    as [`Admission`] allows, share a few workers, and wait for their next turn when they are silent ([`probing`]).
//! 3. A worker is given one block until it has proved itself, then as many ahead as keep the connection busy, however
//!    long the path to the peer is: the worker measures how much is under way on it.
//! 4. Where every peer is known to have everything, blocks are asked for in order, so that the hash of the whole file
//!    can follow the growing prefix. Otherwise the rarest known block comes first; among equals a random one, but of a
//!    peer that has everything one that falls to this node ([`shares`]): no two should take the same block from a seed.
//! 5. A block that a peer does not have yet is asked of others, and of that peer again later.
//! 6. At the end, when every missing block is under way, blocks that a slower worker holds are asked of a faster one
//!    too: at most two requests for a block.
//!
//! A download of two blocks from one peer, which the plan is only told of:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use cascade::cascade_file::Geometry;
//! use cascade::download::plan::{Event, Order, Plan, Rules};
//! use cascade::net::admission::Admission;
//!
//! let geometry = Geometry::new(2000, 1000)?;
//! let rules = Rules {
//!     max_workers: 4,
//!     cores: 2,
//!     spread: 8,
//!     maps: false,
//!     unshared_above: 1 << 20,
//!     gives_up: true,
//! };
//! let admission = Arc::new(Admission::new()?);
//! let random = fastrand::Rng::with_seed(1);
//! let mut plan = Plan::new(geometry, |_| false, rules, admission, random);
//! plan.handle(Duration::ZERO, Event::Peer(([192, 0, 2, 1], 9000).into()));
//!
//! let mut fetched = Vec::new();
//! for second in 0..10 {
//!     let now = Duration::from_secs(second);
//!     while let Some(order) = plan.poll(now) {
//!         if let Order::Fetch(worker, block) = order {
//!             fetched.push(block);
//!             plan.handle(now, Event::Fetched(worker, block));
//!         }
//!     }
//! }
//! assert!(plan.is_complete());
//! assert_eq!(fetched, [0, 1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

mod failures;
#[cfg(test)]
mod path_tests;
mod probing;
#[cfg(test)]
mod probing_tests;
mod seats;
mod shares;
mod state;
#[cfg(test)]
mod swarm_tests;
#[cfg(test)]
mod tests;
mod turns;
mod types;
mod work;

use super::blocks::Blocks;
use crate::cascade_file::Geometry;
use crate::net::admission::Admission;
use state::{Peer, Queued, Worker};
pub use types::{Event, Failure, Order, Rules, Waste, WorkerId};

/// Consecutive failures after which a peer counts as given up, though it is still tried now and then: of one that was
/// never any good, which takes some eight seconds, and of one that was. Some stop listening for seconds (PROTOCOL §4).
const GIVEN_UP_UNKNOWN: u32 = 6;
const GIVEN_UP_KNOWN: u32 = 8;
/// After so many misses in a row a worker without a map pauses before it probes again.
const MISSES: u32 = 8;

/// The state of a download.
#[derive(Debug)]
pub struct Plan {
    rules: Rules,
    geometry: Geometry,
    blocks: Blocks,
    peers: BTreeMap<SocketAddr, Peer>,
    workers: BTreeMap<WorkerId, Worker>,
    next_worker: WorkerId,
    random: fastrand::Rng,
    /// How the others know this node.
    own: Option<SocketAddr>,
    waste: Waste,
    /// Which peers may be connected to; and how much later it is there than here.
    admission: Arc<Admission>,
    ahead: Duration,
    /// Before this time nobody else is admitted.
    next_probe: Duration,
}

impl Plan {
    /// Plans the download of the blocks for which `present` says no. It begins now.
    pub fn new(
        geometry: Geometry,
        present: impl Fn(u32) -> bool,
        rules: Rules,
        admission: Arc<Admission>,
        mut random: fastrand::Rng,
    ) -> Self {
        let blocks = Blocks::new(geometry.blocks(), present, &mut random);
        Self {
            rules,
            geometry,
            blocks,
            peers: BTreeMap::new(),
            workers: BTreeMap::new(),
            next_worker: 0,
            random,
            own: None,
            waste: Waste::default(),
            ahead: admission.now(),
            admission,
            next_probe: Duration::ZERO,
        }
    }

    /// Takes note of what happened at `now`.
    pub fn handle(&mut self, now: Duration, event: Event<'_>) {
        match event {
            Event::Peer(address) => self.meet_named(address),
            Event::Listed(listed) => self.meet_listed(now, listed),
            Event::Own(address) => self.own = Some(address),
            Event::Fetched(worker, block) => self.fetched(now, worker, block),
            Event::Absent(worker, block) => self.absent(now, worker, block),
            Event::Skipped(worker, block) => {
                if self.take_from_queue(worker, block).is_some() {
                    self.waste.requests = self.waste.requests.saturating_sub(1);
                }
            }
            Event::Map(worker, block, map) => self.map(now, worker, block, map),
            Event::NoMap(worker) => {
                self.connected_again(now, worker);
                if let Some((worker, peer)) = self.worker_and_peer(worker) {
                    worker.asking_map = false;
                    peer.knowledge.no_map();
                }
            }
            Event::Began(worker) => self.began(now, worker),
            Event::Path(worker, path) => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.path = path;
                }
            }
            Event::Failed(worker, failure) => self.failed(now, worker, failure),
            Event::Died(worker) => self.died(now, worker),
            Event::NotStarted(worker) => self.not_started(now, worker),
        }
    }

    /// The next thing to be done at `now`, if any.
    pub fn poll(&mut self, now: Duration) -> Option<Order> {
        if self.is_complete() {
            return self.retire_any();
        }
        self.share_awaited_blocks(now);
        self.give_work(now)
            .or_else(|| self.free_a_seat(now))
            .or_else(|| self.hire(now))
    }

    /// Whether every block is present.
    pub fn is_complete(&self) -> bool {
        self.blocks.missing() == 0
    }

    /// Whether no peer is left of whom anything can be hoped: all lied, do not have the file, or cannot be reached
    /// (where that is given up at all).
    pub fn is_exhausted(&self) -> bool {
        let hopeless = |peer: &Peer| {
            let most = if peer.fetched > 0 {
                GIVEN_UP_KNOWN
            } else {
                GIVEN_UP_UNKNOWN
            };
            peer.dropped || peer.lacks_file || (self.rules.gives_up && peer.failures >= most)
        };
        self.workers() == 0 && self.peers.values().all(hopeless)
    }

    /// How many workers are at work.
    pub fn workers(&self) -> usize {
        self.workers
            .values()
            .filter(|worker| !worker.retired)
            .count()
    }

    /// From how many peers blocks came.
    pub fn contributors(&self) -> usize {
        self.peers.values().filter(|peer| peer.fetched > 0).count()
    }

    /// How many peers have a worker.
    pub fn connected_peers(&self) -> usize {
        self.peers
            .keys()
            .filter(|address| self.seats_taken(**address) > 0)
            .count()
    }

    /// How many peers that answered lack blocks, as far as is known: those may want what is here.
    pub fn incomplete_peers(&self) -> usize {
        let peers = self.peers.values();
        peers.filter(|peer| peer.knowledge.is_incomplete()).count()
    }

    /// Whether more workers, or any, would have something to do.
    pub fn wants_workers(&self, now: Duration) -> bool {
        self.workers() > 0
            || (self.blocks.any_pending().is_some() && self.candidates(now).next().is_some())
    }

    /// What was asked for, and in vain.
    pub fn waste(&self) -> Waste {
        self.waste
    }

    /// Changes the number of workers in all.
    pub fn set_max_workers(&mut self, max_workers: usize) {
        self.rules.max_workers = max_workers;
    }

    /// Whether this worker was given this block: nothing else is believed of it.
    pub fn expects(&self, worker: WorkerId, block: u32) -> bool {
        self.workers
            .get(&worker)
            .is_some_and(|worker| worker.queue.iter().any(|queued| queued.block == block))
    }

    fn worker_and_peer(&mut self, id: WorkerId) -> Option<(&mut Worker, &mut Peer)> {
        let worker = self.workers.get_mut(&id)?;
        let peer = self.peers.get_mut(&worker.peer)?;
        Some((worker, peer))
    }

    fn seats_taken(&self, address: SocketAddr) -> usize {
        self.workers
            .values()
            .filter(|worker| worker.peer == address && !worker.retired)
            .count()
    }

    /// Takes a block out of a worker's queue, and out of flight; says when the worker was given it.
    fn take_from_queue(&mut self, id: WorkerId, block: u32) -> Option<Duration> {
        let worker = self.workers.get_mut(&id)?;
        let at = worker
            .queue
            .iter()
            .position(|queued| queued.block == block)?;
        let queued = worker.queue.remove(at);
        if !queued.named {
            self.blocks.released(block);
        }
        Some(queued.given)
    }

    fn fetched(&mut self, now: Duration, id: WorkerId, block: u32) {
        let Some(given) = self.take_from_queue(id, block) else {
            return;
        };
        self.waste.in_vain += u64::from(!self.blocks.set_present(block));
        self.began(now, id);
        let length = self.geometry.block_length(block) as f64;
        let Some((worker, peer)) = self.worker_and_peer(id) else {
            return;
        };
        peer.fetched += 1;
        peer.failures = 0;
        peer.turns = 0;
        peer.knowledge.has(block);
        // The block took as long as since it was given, or since the answer before it, whichever is later.
        let seconds = now
            .saturating_sub(given.max(worker.last_answer))
            .as_secs_f64()
            .max(1e-6);
        worker.took(length, seconds);
        worker.fetched += 1;
        worker.misses = 0;
        worker.last_answer = now;
    }

    fn absent(&mut self, now: Duration, id: WorkerId, block: u32) {
        if self.take_from_queue(id, block).is_none() {
            return;
        }
        self.waste.in_vain += 1;
        self.began(now, id);
        let Some((worker, peer)) = self.worker_and_peer(id) else {
            return;
        };
        peer.failures = 0;
        peer.knowledge.lacks(block, now);
        worker.last_answer = now;
        worker.misses += 1;
        if worker.misses >= MISSES {
            let step = (worker.misses - MISSES).min(4);
            worker.paused_until = now + Duration::from_millis(100) * (1 << step);
        }
    }

    fn map(&mut self, now: Duration, id: WorkerId, block: u32, map: &[u8]) {
        if self.take_from_queue(id, block).is_none() {
            return;
        }
        self.began(now, id);
        let blocks = &mut self.blocks;
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&worker.peer) else {
            return;
        };
        worker.asking_map = false;
        worker.last_answer = now;
        peer.failures = 0;
        peer.knowledge.map(now, map, blocks);
    }
}
