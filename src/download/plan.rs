//! The scheduler of a download: which block is asked of which peer, and when. Pure: it knows no socket, process or
//! clock; time is an argument, counted from the start of the download.
//!
//! The rules, in the order in which they matter:
//!
//! 1. A peer that lied is not asked again. One that cannot be reached is tried again after a while, longer each time.
//! 2. Workers are spread over the peers: the peer with the fewest gets the next. A further worker for a peer waits
//!    until the first has had a block from it.
//! 3. A worker is given one block until it has proved itself, then as many ahead as keep the connection busy.
//! 4. Where every peer is known to have everything, blocks are asked for in order, so that the hash of the whole file
//!    can follow the growing prefix. Otherwise the rarest known block comes first, and among equals a random one.
//! 5. A block that a peer does not have yet is asked of others, and of that peer again later.
//! 6. At the end, when every missing block is under way, blocks that a slower worker holds are asked of a faster one
//!    too: at most two requests for a block.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use super::blocks::Blocks;
use super::knowledge::Knowledge;
use crate::cascade_file::Geometry;

/// The number of a worker; never used twice in a download.
pub type WorkerId = u32;

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A peer is known, by a tracker or by the user.
    Peer(SocketAddr),
    /// A worker fetched a block, and it is right and written.
    Fetched(WorkerId, u32),
    /// The peer does not have the block yet.
    Absent(WorkerId, u32),
    /// The worker found the block present before it asked for it.
    Skipped(WorkerId, u32),
    /// The peer's map of blocks, in answer to [`Order::AskMap`]; the block of that order was not sent.
    Map(WorkerId, u32, &'a [u8]),
    /// The peer does not know maps.
    NoMap(WorkerId),
    /// The worker can do nothing more with its peer, for this reason, and ends.
    Failed(WorkerId, Failure),
    /// The worker's process is gone.
    Died(WorkerId),
}

/// Why a worker gave up on its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It cannot be connected to.
    Unreachable,
    /// It was silent for too long, or closed again and again without an answer.
    Silent,
    /// It does not have the file.
    UnknownHash,
    /// It sent a wrong block, a wrong length, or a status that makes no sense.
    Lied,
    /// Not the peer's fault: the disk failed, or this process.
    Ours,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start a worker for this peer.
    Hire(WorkerId, SocketAddr),
    /// Ask the worker's peer for a block.
    Fetch(WorkerId, u32),
    /// Ask the worker's peer for its map, naming a block that is wanted should it not know maps.
    AskMap(WorkerId, u32),
    /// End a worker.
    Retire(WorkerId),
}

/// What a download does not know when it begins.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Workers in all.
    pub max_workers: usize,
    /// Blocks longer than this are written as they come in, so that two workers must never hold one of them.
    pub unshared_above: u64,
}

/// Consecutive failures after which a peer counts as given up, though it is still tried now and then.
const GIVEN_UP: u32 = 6;
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// How much a worker is asked for ahead: the work of this time at its rate, within the bounds below.
const AHEAD: Duration = Duration::from_millis(250);
const MAX_AHEAD_BYTES: u64 = 4 << 20;
/// PROTOCOL §4: at most 16 requests outstanding with a peer that has not shown the extension.
const MAX_AHEAD_PLAIN: usize = 16;
const MAX_AHEAD_EXTENDED: usize = 256;
/// How long a further worker of a peer may wait for its first answer while another is being served.
const SECOND_SEAT: Duration = Duration::from_secs(2);
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
}

#[derive(Debug)]
struct Peer {
    dropped: bool,
    lacks_file: bool,
    failures: u32,
    not_before: Duration,
    fetched: u64,
    /// How many connections it was found to serve at once.
    seats: usize,
    knowledge: Knowledge,
}

#[derive(Debug)]
struct Worker {
    peer: SocketAddr,
    hired: Duration,
    /// Blocks it was given, in order, and when.
    queue: Vec<(u32, Duration)>,
    fetched: u64,
    /// When it last had an answer.
    last_answer: Duration,
    /// Bytes a second; 0 while unknown.
    rate: f64,
    misses: u32,
    paused_until: Duration,
    asking_map: bool,
    retired: bool,
}

impl Plan {
    /// Plans the download of the blocks for which `present` says no.
    pub fn new(
        geometry: Geometry,
        present: impl Fn(u32) -> bool,
        rules: Rules,
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
        }
    }

    /// Takes note of what happened at `now`.
    pub fn handle(&mut self, now: Duration, event: Event<'_>) {
        match event {
            Event::Peer(address) => self.meet(address),
            Event::Fetched(worker, block) => self.fetched(now, worker, block),
            Event::Absent(worker, block) => self.absent(now, worker, block),
            Event::Skipped(worker, block) => {
                self.take_from_queue(worker, block);
            }
            Event::Map(worker, block, map) => self.map(now, worker, block, map),
            Event::NoMap(worker) => {
                if let Some((worker, peer)) = self.worker_and_peer(worker) {
                    worker.asking_map = false;
                    peer.knowledge.no_map();
                }
            }
            Event::Failed(worker, failure) => self.failed(now, worker, failure),
            Event::Died(worker) => {
                if self
                    .workers
                    .get(&worker)
                    .is_some_and(|worker| !worker.retired)
                {
                    self.failed(now, worker, Failure::Ours);
                }
                self.workers.remove(&worker);
            }
        }
    }

    /// The next thing to be done at `now`, if any.
    pub fn poll(&mut self, now: Duration) -> Option<Order> {
        if self.is_complete() {
            return self.retire_any();
        }
        self.give_work(now)
            .or_else(|| self.free_a_seat(now))
            .or_else(|| self.hire(now))
    }

    /// Whether every block is present.
    pub fn is_complete(&self) -> bool {
        self.blocks.missing() == 0
    }

    /// Whether no peer is left of whom anything can be hoped: all lied, do not have the file, or cannot be reached.
    pub fn is_exhausted(&self) -> bool {
        self.workers() == 0
            && self
                .peers
                .values()
                .all(|peer| peer.dropped || peer.lacks_file || peer.failures >= GIVEN_UP)
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

    /// Changes the number of workers in all.
    pub fn set_max_workers(&mut self, max_workers: usize) {
        self.rules.max_workers = max_workers;
    }

    /// Whether this worker was given this block: nothing else is believed of it.
    pub fn expects(&self, worker: WorkerId, block: u32) -> bool {
        self.workers
            .get(&worker)
            .is_some_and(|worker| worker.queue.iter().any(|(queued, _)| *queued == block))
    }

    fn meet(&mut self, address: SocketAddr) {
        let blocks = self.geometry.blocks();
        self.peers.entry(address).or_insert_with(|| Peer {
            dropped: false,
            lacks_file: false,
            failures: 0,
            not_before: Duration::ZERO,
            fetched: 0,
            seats: usize::MAX,
            knowledge: Knowledge::new(blocks),
        });
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
            .position(|(queued, _)| *queued == block)?;
        let (_, given) = worker.queue.remove(at);
        self.blocks.released(block);
        Some(given)
    }

    fn fetched(&mut self, now: Duration, id: WorkerId, block: u32) {
        let Some(given) = self.take_from_queue(id, block) else {
            return;
        };
        self.blocks.set_present(block);
        let length = self.geometry.block_length(block) as f64;
        let Some((worker, peer)) = self.worker_and_peer(id) else {
            return;
        };
        peer.fetched += 1;
        peer.failures = 0;
        peer.knowledge.has(block);
        // The block took as long as since it was given, or since the answer before it, whichever is later.
        let seconds = now
            .saturating_sub(given.max(worker.last_answer))
            .as_secs_f64()
            .max(1e-6);
        let sample = length / seconds;
        worker.rate = if worker.rate == 0.0 {
            sample
        } else {
            0.75 * worker.rate + 0.25 * sample
        };
        worker.fetched += 1;
        worker.misses = 0;
        worker.last_answer = now;
    }

    fn absent(&mut self, now: Duration, id: WorkerId, block: u32) {
        if self.take_from_queue(id, block).is_none() {
            return;
        }
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

    fn failed(&mut self, now: Duration, id: WorkerId, failure: Failure) {
        self.give_back(id);
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
            Failure::Unreachable | Failure::Silent | Failure::Ours => {
                let backoff = FIRST_BACKOFF * (1 << peer.failures.min(10));
                peer.failures += 1;
                peer.not_before = now + backoff.min(LONGEST_BACKOFF).mul_f64(0.75 + random / 2.0);
            }
        }
    }

    /// Puts a worker's blocks back among those that nobody was asked for.
    fn give_back(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        for (block, _) in std::mem::take(&mut worker.queue) {
            self.blocks.released(block);
        }
    }

    fn retire(&mut self, id: WorkerId) -> Order {
        self.give_back(id);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.retired = true;
        }
        Order::Retire(id)
    }

    fn retire_any(&mut self) -> Option<Order> {
        let id = self
            .workers
            .iter()
            .find(|(_, worker)| !worker.retired)
            .map(|(id, _)| *id)?;
        Some(self.retire(id))
    }

    /// A block for a worker that has room for one.
    fn give_work(&mut self, now: Duration) -> Option<Order> {
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
        if everybody_has_all {
            return self.blocks.first_pending();
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
                *end > now + own * 2
                    && self.blocks.requests(*block) == 1
                    && peer.knowledge.may_have(*block, now)
            })
            .max()
            .map(|(_, block)| block)
    }

    /// A worker that holds a seat for nothing: its peer serves another connection of ours only, or has nothing that
    /// is missing while other peers wait for a seat, or is so slow at the end that a long block must change hands.
    fn free_a_seat(&mut self, now: Duration) -> Option<Order> {
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
    fn candidates(&self, now: Duration) -> impl Iterator<Item = (SocketAddr, usize)> + '_ {
        let mut taken: HashMap<SocketAddr, usize> = HashMap::new();
        for worker in self.workers.values().filter(|worker| !worker.retired) {
            *taken.entry(worker.peer).or_default() += 1;
        }
        self.peers.iter().filter_map(move |(address, peer)| {
            let taken = taken.get(address).copied().unwrap_or(0);
            let usable = !peer.dropped && peer.not_before <= now && taken < peer.seats;
            let proven = taken == 0 || peer.fetched > 0;
            let useful = peer.knowledge.is_unknown()
                || self
                    .blocks
                    .some_pending(|block| peer.knowledge.may_have(block, now));
            (usable && proven && useful).then_some((*address, taken))
        })
    }

    /// A worker for the peer that has the fewest.
    fn hire(&mut self, now: Duration) -> Option<Order> {
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

/// When a worker should have fetched the block at `place` in its queue, at the rate that it had so far. A worker that
/// has stopped looks slower with every moment.
fn expected_end(
    worker: &Worker,
    place: usize,
    given: Duration,
    size: u64,
    now: Duration,
) -> Duration {
    let since = given.max(worker.last_answer);
    if worker.rate == 0.0 {
        // Nothing is known of it: as long again as it has taken so far.
        return now + now.saturating_sub(since) + Duration::from_secs(1);
    }
    let per_block = Duration::from_secs_f64((size as f64 / worker.rate).min(1e6));
    let due = since + per_block * (place as u32 + 1);
    // Overdue: it may take as long again as it is late.
    if due < now { now + (now - due) } else { due }
}
