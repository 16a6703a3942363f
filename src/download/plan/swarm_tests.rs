//! Many plans against each other: a simulated swarm, in which every node has an uplink that its connections share.

use std::collections::{BTreeMap, VecDeque};

use super::tests::{admission, listed};
use super::*;

const TICK: Duration = Duration::from_millis(10);
const BLOCK: u64 = 256 << 10;
/// Bytes per second.
const UPLINK: f64 = 4.75e6;
/// How soon a node hears of those that began with it.
const HEARD: Duration = Duration::from_millis(300);

/// One worker's connection: what it was asked for, and how much of the first answer has arrived.
struct Link {
    from: usize,
    orders: VecDeque<(u32, bool)>,
    arrived: f64,
}

/// A node; the first one is the seed and has no plan.
struct Node {
    plan: Option<Plan>,
    has: Vec<bool>,
    links: BTreeMap<WorkerId, Link>,
    complete: Option<Duration>,
}

struct Swarm {
    now: Duration,
    nodes: Vec<Node>,
    blocks_sent_by_seed: usize,
}

fn address(number: usize) -> SocketAddr {
    ([192, 0, 2, 1], 10_000 + number as u16).into()
}

impl Swarm {
    /// A seed and so many peers, which begin together.
    fn new(peers: usize, blocks: u32, maps: bool, seed: u64) -> Self {
        let geometry = Geometry::new(u64::from(blocks) * BLOCK, BLOCK).expect("a geometry");
        let rules = Rules {
            max_workers: 4,
            spread: 20,
            cores: 64,
            maps,
            unshared_above: 1 << 20,
            gives_up: false,
        };
        let node = |number: usize| {
            let random = fastrand::Rng::with_seed(seed * 100 + number as u64);
            let mut plan = Plan::new(geometry, |_| false, rules, admission(), random);
            plan.handle(Duration::ZERO, Event::Own(address(number)));
            plan.handle(Duration::ZERO, listed(address(0)));
            Node {
                plan: (number > 0).then_some(plan),
                has: vec![number == 0; blocks as usize],
                links: BTreeMap::new(),
                complete: None,
            }
        };
        Self {
            now: Duration::ZERO,
            nodes: (0..=peers).map(node).collect(),
            blocks_sent_by_seed: 0,
        }
    }

    /// Runs until all are complete; says when the last one was, over the bound, and how often the seed sent the file.
    fn run(&mut self) -> (f64, f64) {
        let blocks = self.nodes[0].has.len() as f64;
        let bound = blocks * BLOCK as f64 / UPLINK;
        while self.nodes[1..].iter().any(|node| node.complete.is_none()) {
            assert!(self.now.as_secs_f64() < 20.0 * bound, "it takes for ever");
            if self.now == HEARD {
                self.introduce();
            }
            (1..self.nodes.len()).for_each(|number| self.carry_out_orders(number));
            self.transfer();
            self.now += TICK;
        }
        let last = self.nodes.iter().filter_map(|node| node.complete).max();
        let over = last.unwrap_or_default().as_secs_f64() / bound;
        (over, self.blocks_sent_by_seed as f64 / blocks)
    }

    fn introduce(&mut self) {
        let count = self.nodes.len();
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let Some(plan) = &mut node.plan else { continue };
            for other in (1..count).filter(|other| *other != number) {
                plan.handle(self.now, listed(address(other)));
            }
        }
    }

    fn carry_out_orders(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let Some(plan) = &mut node.plan else { return };
        while let Some(order) = plan.poll(self.now) {
            match order {
                Order::Hire(id, peer) => {
                    let link = Link {
                        from: usize::from(peer.port()) - 10_000,
                        orders: VecDeque::new(),
                        arrived: 0.0,
                    };
                    node.links.insert(id, link);
                }
                Order::Fetch(id, block) | Order::AskMap(id, block) => {
                    let map = matches!(order, Order::AskMap(..));
                    let link = node.links.get_mut(&id).expect("a worker that was hired");
                    link.orders.push_back((block, map));
                }
                Order::Retire(id) => {
                    node.links.remove(&id);
                    plan.handle(self.now, Event::Died(id));
                }
            }
        }
        if plan.is_complete() {
            node.complete.get_or_insert(self.now);
        }
    }

    /// One tick: every uplink is shared by the connections that have something to send.
    fn transfer(&mut self) {
        let has: Vec<Vec<bool>> = self.nodes.iter().map(|node| node.has.clone()).collect();
        let mut busy = vec![0_usize; has.len()];
        for link in self.nodes.iter().flat_map(|node| node.links.values()) {
            let sends = |(block, map): &(u32, bool)| !map && has[link.from][*block as usize];
            busy[link.from] += usize::from(link.orders.front().is_some_and(sends));
        }
        let now = self.now;
        for node in &mut self.nodes {
            let (Some(plan), links) = (&mut node.plan, &mut node.links) else {
                continue;
            };
            for (id, link) in links {
                let Some((block, map)) = link.orders.front().copied() else {
                    continue;
                };
                let event = if map {
                    link.orders.pop_front();
                    plan.handle(now, Event::Map(*id, block, &to_map(&has[link.from])));
                    continue;
                } else if has[link.from][block as usize] {
                    link.arrived += UPLINK * TICK.as_secs_f64() / busy[link.from].max(1) as f64;
                    if link.arrived < BLOCK as f64 {
                        continue;
                    }
                    link.arrived -= BLOCK as f64;
                    node.has[block as usize] = true;
                    self.blocks_sent_by_seed += usize::from(link.from == 0);
                    Event::Fetched(*id, block)
                } else {
                    Event::Absent(*id, block)
                };
                link.orders.pop_front();
                if link.orders.is_empty() {
                    link.arrived = 0.0;
                }
                plan.handle(now, event);
            }
        }
    }

    /// Requests for blocks in all, and those in vain.
    fn waste(&self) -> (u64, u64) {
        let plans = self.nodes.iter().filter_map(|node| node.plan.as_ref());
        plans.fold((0, 0), |(requests, in_vain), plan| {
            let waste = plan.waste();
            (requests + waste.requests, in_vain + waste.in_vain)
        })
    }
}

fn to_map(has: &[bool]) -> Vec<u8> {
    if has.iter().all(|has| *has) {
        return Vec::new();
    }
    let mut map = vec![0; has.len().div_ceil(8)];
    for (block, _) in has.iter().enumerate().filter(|(_, has)| **has) {
        map[block / 8] |= 0x80 >> (block % 8);
    }
    map
}

#[test]
fn with_maps_the_last_of_a_swarm_is_within_a_fifth_of_the_bound_and_hardly_anything_is_in_vain() {
    for (peers, blocks, seed) in [(2, 128, 1), (8, 192, 2), (8, 192, 3)] {
        let mut swarm = Swarm::new(peers, blocks, true, seed);
        let (over, copies) = swarm.run();
        let (requests, in_vain) = swarm.waste();
        let what = format!("{peers} peers: {over:.3} of the bound, {copies:.2} copies");
        assert!(over < 1.2 && copies < 1.25, "{what}");
        assert!(in_vain * 50 <= requests, "{in_vain} of {requests}; {what}");
    }
}

#[test]
fn without_maps_a_swarm_still_does_far_better_than_the_seed_alone() {
    let (over, copies) = Swarm::new(8, 128, false, 5).run();
    assert!(over < 1.7, "{over:.3} of the bound, {copies:.2} copies");
}

#[test]
fn no_two_of_a_swarm_begin_with_the_same_block_of_the_seed() {
    let mut swarm = Swarm::new(8, 256, true, 7);
    while swarm.blocks_sent_by_seed < 8 {
        (1..=8).for_each(|number| swarm.carry_out_orders(number));
        swarm.transfer();
        swarm.now += TICK;
    }
    let held = |block: usize| {
        swarm.nodes[1..]
            .iter()
            .filter(|node| node.has[block])
            .count()
    };
    let distinct = (0..256).filter(|block| held(*block) > 0).count();
    assert!(distinct >= 7, "{distinct} of 8 blocks are different ones");
}
