//! The plan against a simulated network, whose clock is a number.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::*;
use crate::download::report::Listed;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
/// More than there are workers.
pub(super) const CORES: usize = 64;

/// Nobody was connected to yet.
pub(super) fn admission() -> Arc<Admission> {
    Arc::new(Admission::new().expect("memory"))
}

/// What a tracker says of a peer.
pub(super) fn listed(address: SocketAddr) -> Event<'static> {
    Event::Listed(Listed {
        address,
        good: false,
        place: 0,
        last_seen: 0,
    })
}

/// A peer of the simulated network.
#[derive(Clone)]
pub(super) struct Remote {
    /// Which blocks it has.
    pub(super) has: Vec<bool>,
    /// Time per block and connection.
    pub(super) pace: Duration,
    /// Whether it knows maps.
    pub(super) maps: bool,
    /// How many connections it answers at once.
    pub(super) seats: usize,
    /// What happens instead of an answer.
    pub(super) failure: Option<Failure>,
    /// It tells its map, and nothing else.
    pub(super) stalls_after_map: bool,
}

impl Remote {
    pub(super) fn complete(blocks: usize, pace: Duration) -> Self {
        Self {
            has: vec![true; blocks],
            pace,
            maps: false,
            seats: usize::MAX,
            failure: None,
            stalls_after_map: false,
        }
    }

    fn map(&self) -> Vec<u8> {
        let mut map = vec![0; self.has.len().div_ceil(8)];
        for (block, _) in self.has.iter().enumerate().filter(|(_, has)| **has) {
            map[block / 8] |= 0x80 >> (block % 8);
        }
        map
    }
}

/// A worker of the simulation: its peer, its orders, and when the first of them is answered.
pub(super) struct Simulated {
    peer: SocketAddr,
    orders: VecDeque<(u32, bool)>,
    busy_until: Option<Duration>,
    no_map_said: bool,
}

pub(super) struct Simulation {
    pub(super) plan: Plan,
    pub(super) now: Duration,
    pub(super) remotes: BTreeMap<SocketAddr, Remote>,
    pub(super) workers: BTreeMap<WorkerId, Simulated>,
    pub(super) fetched: Vec<u32>,
    pub(super) requests: usize,
    pub(super) order: Vec<(SocketAddr, u32)>,
    pub(super) asked: HashSet<SocketAddr>,
}

pub(super) fn address(number: u16) -> SocketAddr {
    ([192, 0, 2, number as u8], 9000).into()
}

impl Simulation {
    pub(super) fn new(
        blocks: u32,
        block_size: u64,
        max_workers: usize,
        remotes: Vec<Remote>,
    ) -> Self {
        let geometry =
            Geometry::new(u64::from(blocks) * block_size, block_size).expect("a geometry");
        let rules = Rules {
            max_workers,
            spread: 0,
            cores: CORES,
            maps: true,
            unshared_above: 1 << 20,
            gives_up: true,
        };
        let mut plan = Plan::new(
            geometry,
            |_| false,
            rules,
            admission(),
            fastrand::Rng::with_seed(42),
        );
        let remotes: BTreeMap<_, _> = remotes
            .into_iter()
            .enumerate()
            .map(|(number, remote)| (address(number as u16 + 1), remote))
            .collect();
        for peer in remotes.keys() {
            plan.handle(Duration::ZERO, listed(*peer));
        }
        Self {
            plan,
            now: Duration::ZERO,
            remotes,
            workers: BTreeMap::new(),
            fetched: vec![0; blocks as usize],
            requests: 0,
            order: Vec::new(),
            asked: HashSet::new(),
        }
    }

    /// Runs until the download is complete or hopeless, at most for so long; says how long it took.
    pub(super) fn run(&mut self, at_most: Duration) -> Duration {
        while !self.plan.is_complete() && !self.plan.is_exhausted() && self.now < at_most {
            self.carry_out_orders();
            self.answer();
            self.now += MILLISECOND;
        }
        self.now
    }

    fn carry_out_orders(&mut self) {
        while let Some(order) = self.plan.poll(self.now) {
            match order {
                Order::Hire(id, peer) => {
                    self.asked.insert(peer);
                    let orders = VecDeque::new();
                    self.workers.insert(
                        id,
                        Simulated {
                            peer,
                            orders,
                            busy_until: None,
                            no_map_said: false,
                        },
                    );
                }
                Order::Fetch(id, block) => self.order(id, block, false),
                Order::AskMap(id, block) => self.order(id, block, true),
                Order::Retire(id) => {
                    self.workers.remove(&id);
                    self.plan.handle(self.now, Event::Died(id));
                }
            }
        }
    }

    fn order(&mut self, id: WorkerId, block: u32, map: bool) {
        self.requests += usize::from(!map);
        if !map {
            assert_eq!(
                self.fetched[block as usize], 0,
                "block {block} is there and asked for again"
            );
        }
        let worker = self
            .workers
            .get_mut(&id)
            .expect("an order for a worker that was hired");
        self.order.push((worker.peer, block));
        assert!(worker.orders.len() < 256, "no worker hoards orders");
        worker.orders.push_back((block, map));
        assert!(self.holders(block) <= 2, "at most two requests for a block");
    }

    /// How many workers were given a block, without those for which nobody waits any more.
    fn holders(&self, block: u32) -> usize {
        let holds = |id: &WorkerId| {
            let queue = self.plan.workers.get(id).map(|worker| &worker.queue);
            queue.is_some_and(|queue| queue.iter().any(|one| one.block == block && !one.named))
        };
        self.workers.keys().filter(|id| holds(id)).count()
    }

    fn answer(&mut self) {
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in ids {
            let worker = &self.workers[&id];
            let remote = self.remotes[&worker.peer].clone();
            let earlier = self
                .workers
                .range(..id)
                .filter(|(_, other)| other.peer == worker.peer)
                .count();
            let stalls =
                remote.stalls_after_map && worker.orders.front().is_some_and(|(_, map)| !map);
            if worker.orders.is_empty() || earlier >= remote.seats || stalls {
                continue;
            }
            let due = worker.busy_until.unwrap_or(self.now + remote.pace);
            self.workers.get_mut(&id).expect("it is there").busy_until = Some(due);
            if due <= self.now {
                self.answer_one(id, &remote);
            }
        }
    }

    fn answer_one(&mut self, id: WorkerId, remote: &Remote) {
        let worker = self.workers.get_mut(&id).expect("it is there");
        worker.busy_until = None;
        if let Some(failure) = remote.failure {
            self.workers.remove(&id);
            if failure == Failure::Lied {
                self.plan.handle(self.now, Event::Began(id));
            }
            self.plan.handle(self.now, Event::Failed(id, failure));
            self.plan.handle(self.now, Event::Died(id));
            return;
        }
        let (block, map) = worker.orders.pop_front().expect("an order");
        if map && remote.maps {
            self.plan
                .handle(self.now, Event::Map(id, block, &remote.map()));
            return;
        }
        if map && !std::mem::replace(&mut worker.no_map_said, true) {
            self.plan.handle(self.now, Event::NoMap(id));
        }
        if remote.has[block as usize] {
            self.fetched[block as usize] += 1;
            self.plan.handle(self.now, Event::Fetched(id, block));
        } else {
            self.plan.handle(self.now, Event::Absent(id, block));
        }
    }

    pub(super) fn assert_complete(&self) {
        assert!(self.plan.is_complete());
        assert!(
            self.fetched.iter().all(|count| *count > 0),
            "a block that was never sent counts as present"
        );
    }
}

#[test]
fn one_peer_gives_everything_and_hardly_a_block_twice() {
    let mut simulation =
        Simulation::new(200, 1000, 4, vec![Remote::complete(200, 5 * MILLISECOND)]);
    simulation.run(Duration::from_secs(60));
    simulation.assert_complete();
    assert!(
        simulation.requests <= 204,
        "{} requests for 200 blocks",
        simulation.requests
    );
}

#[test]
fn a_single_peer_that_has_everything_is_asked_in_order() {
    let remote = Remote {
        maps: true,
        ..Remote::complete(100, 5 * MILLISECOND)
    };
    let mut simulation = Simulation::new(100, 1000, 1, vec![remote]);
    simulation.run(Duration::from_secs(60));
    simulation.assert_complete();
    assert!(simulation.order[1..].is_sorted(), "{:?}", simulation.order);
}

#[test]
fn a_single_peer_gets_several_workers_once_it_has_proved_itself() {
    let mut simulation =
        Simulation::new(400, 1000, 4, vec![Remote::complete(400, 10 * MILLISECOND)]);
    let took = simulation.run(Duration::from_secs(60));
    simulation.assert_complete();
    assert!(took < Duration::from_millis(400 * 10 / 3), "{took:?}");
}

#[test]
fn a_peer_that_keeps_the_cores_busy_gets_no_more_workers_than_there_are_cores() {
    const BLOCK: u64 = 1 << 20;
    for (pace, workers) in [(4, 2), (40, 4)] {
        let remote = Remote::complete(400, pace * MILLISECOND);
        let mut simulation = Simulation::new(400, BLOCK, 4, vec![remote]);
        simulation.plan.rules.cores = 2;
        simulation.run(Duration::from_millis(150));
        assert_eq!(simulation.plan.workers(), 2, "how fast it is, is found out");
        simulation.run(Duration::from_millis(700));
        assert_eq!(simulation.plan.workers(), workers, "{pace} ms a block");
        simulation.run(Duration::from_secs(60));
        simulation.assert_complete();
    }
}

#[test]
fn a_peer_that_serves_one_connection_at_a_time_keeps_no_block_from_the_others() {
    let single = Remote {
        seats: 1,
        ..Remote::complete(600, 10 * MILLISECOND)
    };
    let mut simulation = Simulation::new(600, 1000, 4, vec![single]);
    let took = simulation.run(Duration::from_secs(60));
    simulation.assert_complete();
    assert!(took < Duration::from_millis(600 * 10 + 1000), "{took:?}");
    assert_eq!(simulation.plan.workers(), 1, "the other workers have left");
}

#[test]
fn peers_that_each_have_a_part_complete_the_file_with_and_without_maps() {
    for maps in [true, false] {
        let part = |number: usize| Remote {
            has: (0..120).map(|block| block % 3 == number).collect(),
            maps,
            ..Remote::complete(120, 5 * MILLISECOND)
        };
        let mut simulation = Simulation::new(120, 1000, 4, (0..3).map(part).collect());
        simulation.run(Duration::from_secs(120));
        simulation.assert_complete();
        if maps {
            assert!(
                simulation.requests <= 126,
                "with maps nobody is asked in vain: {}",
                simulation.requests
            );
        }
    }
}

#[test]
fn the_rarest_block_is_asked_for_first() {
    let mut remotes = vec![
        Remote {
            maps: true,
            ..Remote::complete(64, 20 * MILLISECOND)
        };
        3
    ];
    for remote in &mut remotes[1..] {
        remote.has[17] = false;
        remote.has[63] = false;
    }
    remotes[0].has[63] = false;
    let rare = Remote {
        has: (0..64).map(|block| block != 5).collect(),
        ..remotes[0].clone()
    };
    remotes[0] = Remote {
        has: rare
            .has
            .iter()
            .enumerate()
            .map(|(b, has)| *has || b == 63)
            .collect(),
        ..rare
    };
    let mut simulation = Simulation::new(64, 1000, 3, remotes);
    simulation.run(Duration::from_millis(200));
    let of_holder = simulation
        .order
        .iter()
        .filter(|(peer, _)| *peer == address(1));
    let first: Vec<u32> = of_holder.map(|(_, block)| *block).take(4).collect();
    assert!(
        first.contains(&17) && first.contains(&63),
        "the only peer with blocks 17 and 63 was asked for {first:?} first"
    );
}

#[test]
fn a_liar_is_asked_once_and_the_rest_comes_from_others() {
    let liar = Remote {
        failure: Some(Failure::Lied),
        ..Remote::complete(50, MILLISECOND)
    };
    let mut simulation = Simulation::new(
        50,
        1000,
        4,
        vec![liar, Remote::complete(50, 5 * MILLISECOND)],
    );
    simulation.run(Duration::from_secs(60));
    simulation.assert_complete();
    assert!(simulation.plan.peers[&address(1)].dropped);
}

#[test]
fn with_nobody_but_liars_and_strangers_to_the_file_the_download_is_hopeless_at_once() {
    let liar = Remote {
        failure: Some(Failure::Lied),
        ..Remote::complete(5, MILLISECOND)
    };
    let stranger = Remote {
        failure: Some(Failure::UnknownHash),
        ..Remote::complete(5, MILLISECOND)
    };
    let mut simulation = Simulation::new(5, 1000, 4, vec![liar, stranger]);
    let took = simulation.run(Duration::from_secs(60));
    assert!(
        simulation.plan.is_exhausted() && took < Duration::from_secs(1),
        "{took:?}"
    );
}

#[test]
fn an_unreachable_peer_is_tried_again_later_and_given_up_in_the_end() {
    let gone = Remote {
        failure: Some(Failure::Unreachable),
        ..Remote::complete(5, MILLISECOND)
    };
    let mut simulation = Simulation::new(5, 1000, 4, vec![gone]);
    let took = simulation.run(Duration::from_secs(120));
    assert!(simulation.plan.is_exhausted());
    assert!(
        took > Duration::from_secs(1) && took < Duration::from_secs(30),
        "{took:?}"
    );
}

#[test]
fn a_slow_peer_loses_its_last_blocks_to_a_fast_one() {
    let slow = Remote::complete(100, Duration::from_secs(30));
    let mut simulation = Simulation::new(
        100,
        1000,
        2,
        vec![slow, Remote::complete(100, 10 * MILLISECOND)],
    );
    let took = simulation.run(Duration::from_secs(60));
    simulation.assert_complete();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_long_block_changes_hands_without_ever_being_held_twice() {
    let slow = Remote::complete(8, Duration::from_secs(300));
    let mut simulation = Simulation::new(
        8,
        4 << 20,
        2,
        vec![slow, Remote::complete(8, 50 * MILLISECOND)],
    );
    let mut twice = false;
    while !simulation.plan.is_complete() && simulation.now < Duration::from_secs(60) {
        simulation.run(simulation.now + MILLISECOND);
        twice |= (0..8).any(|block| simulation.holders(block) > 1);
    }
    simulation.assert_complete();
    assert!(!twice, "two workers would write the same long block");
    assert!(
        simulation.now < Duration::from_secs(30),
        "{:?}",
        simulation.now
    );
}

#[test]
fn workers_are_spread_over_the_peers() {
    let mut simulation = Simulation::new(
        1000,
        1000,
        4,
        vec![Remote::complete(1000, 10 * MILLISECOND); 4],
    );
    simulation.run(Duration::from_millis(100));
    assert_eq!(simulation.asked.len(), 4);
}

#[test]
fn a_worker_that_dies_gives_its_blocks_back() {
    let mut simulation = Simulation::new(30, 1000, 2, vec![Remote::complete(30, 10 * MILLISECOND)]);
    simulation.run(Duration::from_millis(60));
    let ids: Vec<WorkerId> = simulation.workers.keys().copied().collect();
    for id in ids {
        simulation.workers.remove(&id);
        simulation.plan.handle(simulation.now, Event::Died(id));
    }
    simulation.run(Duration::from_secs(60));
    simulation.assert_complete();
}

#[test]
fn a_report_of_a_block_that_was_not_ordered_is_not_expected() {
    let mut plan = Simulation::new(4, 1000, 1, vec![Remote::complete(4, MILLISECOND)]).plan;
    let Some(Order::Hire(id, _)) = plan.poll(Duration::ZERO) else {
        panic!("a worker is hired first")
    };
    let Some(Order::AskMap(_, block)) = plan.poll(Duration::ZERO) else {
        panic!("the map is asked for first")
    };
    assert!(plan.expects(id, block));
    assert!(!plan.expects(id, (block + 1) % 4));
    assert!(!plan.expects(id + 1, block));
}

#[test]
fn silent_peers_do_not_keep_their_seats_while_another_waits() {
    let mut remotes = vec![Remote::complete(50, Duration::from_secs(3600)); 12];
    remotes.push(Remote::complete(50, 10 * MILLISECOND));
    let mut simulation = Simulation::new(50, 1000, 2, remotes);
    let took = simulation.run(Duration::from_secs(120));
    simulation.assert_complete();
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn workers_beyond_their_number_are_let_go() {
    let mut simulation = Simulation::new(
        1000,
        1000,
        4,
        vec![Remote::complete(1000, 10 * MILLISECOND)],
    );
    simulation.run(Duration::from_millis(500));
    assert_eq!(simulation.plan.workers(), 4);
    simulation.plan.set_max_workers(1);
    simulation.run(Duration::from_millis(510));
    assert_eq!(simulation.plan.workers(), 1);
    simulation.run(Duration::from_secs(60));
    simulation.assert_complete();
}

#[test]
fn a_peer_that_lost_what_it_had_is_asked_what_it_has() {
    let whole = Remote {
        maps: true,
        ..Remote::complete(40, 10 * MILLISECOND)
    };
    let mut simulation = Simulation::new(40, 1000, 1, vec![whole.clone(), whole]);
    simulation.run(Duration::from_millis(60));
    for remote in simulation.remotes.values_mut() {
        remote.has[20..].fill(false);
    }
    simulation.run(Duration::from_secs(2));
    let before = simulation.requests;
    simulation.run(Duration::from_secs(6));
    assert!(
        simulation.requests - before < 10,
        "it is asked for what it does not have"
    );
    for remote in simulation.remotes.values_mut() {
        remote.has.fill(true);
    }
    simulation.run(Duration::from_secs(60));
    simulation.assert_complete();
}
