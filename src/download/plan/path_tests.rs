//! The plan against a simulated long path with one peer at its end, whose clock is a number.

use std::collections::VecDeque;
use std::time::Instant;

use super::tests::{CORES, MILLISECOND, address, admission};
use super::*;
use crate::download::worker::path::Meter;

/// Bytes that come in each millisecond: 100 Mbit/s.
const EACH: u64 = 12_500;
const SIZE: u64 = 64 << 20;

/// A request that was sent.
struct Sent {
    block: u32,
    map: bool,
    at: Duration,
    alone: bool,
    /// Bytes of its answer that are to come.
    left: u64,
    begun: bool,
}

/// A path, one worker, and the plan.
struct LongPath {
    plan: Plan,
    round_trip: Duration,
    worker: Option<WorkerId>,
    /// Blocks to be asked for, and whether for the map instead.
    waiting: VecDeque<(u32, bool)>,
    sent: VecDeque<Sent>,
    answers: u32,
    meter: Meter,
    origin: Instant,
}

impl LongPath {
    fn new(block_size: u64, round_trip: Duration) -> Self {
        let rules = Rules {
            max_workers: 1,
            spread: 0,
            cores: CORES,
            maps: true,
            unshared_above: 1 << 20,
            gives_up: true,
        };
        let geometry = Geometry::new(SIZE, block_size).expect("a geometry");
        let random = fastrand::Rng::with_seed(7);
        let mut plan = Plan::new(geometry, |_| false, rules, admission(), random);
        plan.handle(Duration::ZERO, Event::Peer(address(1)));
        let origin = Instant::now();
        Self {
            plan,
            round_trip,
            worker: None,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            answers: 0,
            meter: Meter::new(origin),
            origin,
        }
    }

    fn run(&mut self) -> Duration {
        let mut now = Duration::ZERO;
        while !self.plan.is_complete() && now < Duration::from_secs(600) {
            self.ask(now);
            self.receive(now);
            now += MILLISECOND;
        }
        now
    }

    /// Carries out orders. Requests are sent one at a time until there were two answers.
    fn ask(&mut self, now: Duration) {
        while let Some(order) = self.plan.poll(now) {
            match order {
                Order::Hire(id, _) => self.worker = Some(id),
                Order::Fetch(_, block) => self.waiting.push_back((block, false)),
                Order::AskMap(_, block) => self.waiting.push_back((block, true)),
                Order::Retire(_) => {}
            }
        }
        while self.sent.is_empty() || self.answers >= 2 {
            let Some((block, map)) = self.waiting.pop_front() else {
                break;
            };
            let alone = self.sent.is_empty();
            if alone {
                self.meter.drained(self.origin + now);
            }
            self.sent.push_back(Sent {
                block,
                map,
                at: now,
                alone,
                left: match map {
                    true => 1,
                    false => self.plan.geometry.block_length(block),
                },
                begun: false,
            });
        }
    }

    fn receive(&mut self, now: Duration) {
        let mut room = EACH;
        let at = self.origin + now;
        while let Some(sent) = self.sent.front_mut() {
            if now < sent.at + self.round_trip || room == 0 {
                break;
            }
            if !std::mem::replace(&mut sent.begun, true) && sent.alone {
                self.meter.answered(now - sent.at, at);
            }
            let bytes = sent.left.min(room);
            (sent.left, room) = (sent.left - bytes, room - bytes);
            self.meter.received(bytes, at, || None);
            let worker = self.worker.expect("a worker was hired");
            if let Some(path) = self.meter.news() {
                self.plan.handle(now, Event::Path(worker, path));
            }
            if self.sent.front().is_some_and(|sent| sent.left == 0) {
                let sent = self.sent.pop_front().expect("it is there");
                self.answers += 1;
                let all = vec![0xff; self.plan.geometry.blocks().div_ceil(8) as usize];
                self.plan.handle(
                    now,
                    match sent.map {
                        true => Event::Map(worker, sent.block, &all),
                        false => Event::Fetched(worker, sent.block),
                    },
                );
            }
        }
    }
}

#[test]
fn one_worker_fills_the_path_however_long_it_is() {
    for block_size in [64 << 10, 1 << 20] {
        for round_trip in [0, 50, 100, 300, 600, 1200] {
            let round_trip = round_trip * MILLISECOND;
            let took = LongPath::new(block_size, round_trip).run();
            let at_least = MILLISECOND * (SIZE / EACH) as u32;
            // The first two requests, and then as long as it takes to double from what comes in during one of them.
            let at_most = at_least.mul_f64(1.05) + 9 * round_trip;
            assert!(
                took >= at_least && took <= at_most,
                "blocks of {block_size}, {round_trip:?}: {took:?}, at most {at_most:?}"
            );
        }
    }
}

#[test]
fn no_more_is_asked_for_ahead_than_the_path_needs() {
    let mut path = LongPath::new(64 << 10, 100 * MILLISECOND);
    let (mut now, mut most) = (Duration::ZERO, 0);
    while !path.plan.is_complete() {
        path.ask(now);
        most = most.max(path.sent.len() as u64 * (64 << 10));
        path.receive(now);
        now += MILLISECOND;
    }
    // Two round trips, a quarter of a second, and as much again while it was growing.
    assert!(most < EACH * 1000, "{most} bytes were asked for ahead");
}
