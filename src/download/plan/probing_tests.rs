//! The plan among peers that are worth nothing.

use super::tests::{MILLISECOND, Remote, Simulation, listed};
use super::*;
use crate::download::report::Listed;

/// One that accepts, and never answers.
fn silent(blocks: usize) -> Remote {
    Remote::complete(blocks, Duration::from_secs(100_000))
}

/// So many of them, each in a network of its own, beside one other; with the default number of workers.
fn among(silent_peers: u16, other: Remote) -> Simulation {
    let blocks = other.has.len();
    let mut simulation = Simulation::new(blocks as u32, 1000, 4, vec![other]);
    simulation.plan.rules.spread = 20;
    for number in 0..silent_peers {
        let [high, low] = number.to_be_bytes();
        let address = ([10, high, low, 1], 9000).into();
        simulation.plan.handle(Duration::ZERO, listed(address));
        simulation.remotes.insert(address, silent(blocks));
    }
    simulation
}

fn hand_name(simulation: &mut Simulation) {
    let peer = super::tests::address(1);
    simulation.plan.handle(Duration::ZERO, Event::Peer(peer));
}

#[test]
fn a_seed_among_silent_peers_is_found_soon() {
    let mut simulation = among(60, Remote::complete(128, 10 * MILLISECOND));
    let took = simulation.run(Duration::from_secs(60));
    simulation.assert_complete();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_seed_of_a_single_block_is_found_soon_as_well() {
    let mut simulation = among(60, Remote::complete(1, 10 * MILLISECOND));
    let took = simulation.run(Duration::from_secs(60));
    simulation.assert_complete();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_seed_that_the_user_names_is_not_delayed_by_silent_peers() {
    let alone = |silent_peers| {
        let mut simulation = among(silent_peers, Remote::complete(400, 10 * MILLISECOND));
        hand_name(&mut simulation);
        let took = simulation.run(Duration::from_secs(60));
        simulation.assert_complete();
        took
    };
    let (alone, beside) = (alone(0), alone(1000));
    assert!(
        beside < alone + Duration::from_millis(700),
        "{alone:?} alone, {beside:?} beside silent peers"
    );
}

#[test]
fn silent_peers_share_few_workers_once_another_has_proved_itself() {
    let mut simulation = among(1000, Remote::complete(100_000, MILLISECOND));
    hand_name(&mut simulation);
    simulation.run(Duration::from_secs(3));
    assert_eq!(simulation.plan.proved_workers(), 4);
    assert!(simulation.plan.unproved_workers().count() <= 4);
}

#[test]
fn a_peer_that_needs_time_is_used_when_nobody_is_better() {
    let mut simulation = among(60, Remote::complete(3, Duration::from_secs(7)));
    let took = simulation.run(Duration::from_secs(150));
    simulation.assert_complete();
    assert!(took < Duration::from_secs(120), "{took:?}");
}

#[test]
fn a_silent_peer_is_waited_for_while_nobody_else_waits() {
    let mut simulation = among(3, Remote::complete(1, Duration::from_secs(15)));
    let took = simulation.run(Duration::from_secs(60));
    simulation.assert_complete();
    assert!(took < Duration::from_secs(16), "{took:?}");
}

#[test]
fn peers_that_claim_to_have_all_and_send_nothing_make_room() {
    let mut simulation = among(60, Remote::complete(128, 10 * MILLISECOND));
    for number in 0..60 {
        let address = ([10, 0, number, 1], 9000).into();
        let remote = simulation.remotes.get_mut(&address).expect("it is there");
        // It tells its map at once, and is silent from then on.
        *remote = Remote {
            maps: true,
            stalls_after_map: true,
            ..Remote::complete(128, MILLISECOND)
        };
    }
    let took = simulation.run(Duration::from_secs(60));
    simulation.assert_complete();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// How often each is connected to, where a tracker names so many others each second, all of which refuse.
fn connects(seconds: u64, names: impl Fn(u64) -> Vec<SocketAddr>) -> BTreeMap<SocketAddr, usize> {
    let mut simulation = Simulation::new(50, 1000, 4, vec![]);
    simulation.plan.rules.spread = 20;
    let mut connects = BTreeMap::new();
    for step in 0..seconds * 50 {
        let now = Duration::from_millis(20) * step as u32;
        if now.subsec_millis() == 0 {
            for address in names(now.as_secs()) {
                simulation.plan.handle(now, listed(address));
            }
        }
        while let Some(order) = simulation.plan.poll(now) {
            if let Order::Hire(id, peer) = order {
                *connects.entry(peer).or_default() += 1;
                let failed = Event::Failed(id, Failure::Unreachable);
                simulation.plan.handle(now, failed);
                simulation.plan.handle(now, Event::Died(id));
            }
        }
    }
    connects
}

#[test]
fn an_address_that_a_tracker_names_with_all_its_ports_is_hardly_connected_to() {
    let ports = |second: u64| {
        let port = |number: u64| {
            (
                [192, 0, 2, 1],
                (1024 + (second * 200 + number) % 60_000) as u16,
            )
        };
        (0..200).map(|number| port(number).into()).collect()
    };
    let connects = connects(40, ports);
    let all: usize = connects.values().sum();
    assert!((15..30).contains(&all), "{all}");
}

#[test]
fn connects_to_strangers_are_limited_and_the_strangers_forgotten() {
    let strangers = |second: u64| {
        let number = |number: u64| (second * 200 + number) as u32;
        let address =
            |number: u32| SocketAddr::from(((0x0a00_0000 + (number << 8)).to_be_bytes(), 9000));
        (0..200).map(|one| address(number(one))).collect()
    };
    let connects = connects(25, strangers);
    let all: usize = connects.values().sum();
    assert!((350..17 * 26).contains(&all), "{all}");
}

#[test]
fn what_is_remembered_of_strangers_is_bounded_and_newcomers_are_let_in() {
    let mut simulation = Simulation::new(50, 1000, 4, vec![]);
    let address = |number: u32| SocketAddr::from(((0x0a00_0000 + number).to_be_bytes(), 9000));
    for number in 0..10_000 {
        simulation
            .plan
            .handle(Duration::ZERO, listed(address(number)));
    }
    assert!(simulation.plan.peers.len() <= 4096);
    assert!(simulation.plan.peers.contains_key(&address(9_999)));
}

#[test]
fn those_whom_a_tracker_names_first_are_tried_first_and_good_ones_before_them() {
    let mut simulation = Simulation::new(50, 1000, 1, vec![]);
    let address = |number: u8| SocketAddr::from(([10, number, 0, 1], 9000));
    for number in 0..100 {
        let listed = Listed {
            address: address(number),
            good: number == 90,
            place: number ^ 31,
            last_seen: 0,
        };
        simulation
            .plan
            .handle(Duration::ZERO, Event::Listed(listed));
    }
    let mut order = Vec::new();
    for _ in 0..3 {
        let Some(Order::Hire(id, peer)) = simulation.plan.poll(Duration::ZERO) else {
            panic!("a worker is hired")
        };
        order.push(peer);
        simulation
            .plan
            .handle(Duration::ZERO, Event::Failed(id, Failure::Unreachable));
        simulation.plan.handle(Duration::ZERO, Event::Died(id));
    }
    assert_eq!(order, [address(90), address(31), address(30)]);
}

#[test]
fn a_network_of_which_others_failed_comes_later() {
    let mut simulation = Simulation::new(50, 1000, 1, vec![]);
    for host in 0..50 {
        let address = ([10, 0, 0, host], 9000).into();
        simulation.plan.handle(Duration::ZERO, listed(address));
    }
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 9000));
    let last = Listed {
        address: elsewhere,
        good: false,
        place: 200,
        last_seen: 0,
    };
    simulation.plan.handle(Duration::ZERO, Event::Listed(last));
    for turn in 0..2 {
        let Some(Order::Hire(id, peer)) = simulation.plan.poll(Duration::ZERO) else {
            panic!("a worker is hired")
        };
        assert_eq!(turn == 1, peer == elsewhere);
        simulation
            .plan
            .handle(Duration::ZERO, Event::Failed(id, Failure::Unreachable));
        simulation.plan.handle(Duration::ZERO, Event::Died(id));
    }
}

#[test]
fn a_newcomer_does_not_wait_for_all_that_were_named_before() {
    let mut simulation = Simulation::new(50, 1000, 4, vec![]);
    let port = |number: u16| SocketAddr::from(([192, 0, 2, 1], 9000 + number));
    let newcomer = port(20);
    for step in 0..3000_u32 {
        let now = 10 * MILLISECOND * step;
        if step % 100 == 0 {
            let known = 0..20;
            let new = (step >= 800).then_some(20);
            for number in known.chain(new) {
                simulation.plan.handle(now, listed(port(number)));
            }
        }
        while let Some(order) = simulation.plan.poll(now) {
            if let Order::Hire(id, peer) = order {
                if peer == newcomer {
                    return;
                }
                let failed = Event::Failed(id, Failure::Unreachable);
                simulation.plan.handle(now, failed);
                simulation.plan.handle(now, Event::Died(id));
            }
        }
    }
    panic!("it is not connected to");
}

#[test]
fn one_that_tells_the_tracker_again_that_it_is_there_is_asked_at_once() {
    let mut simulation = Simulation::new(50, 1000, 1, vec![]);
    let address = SocketAddr::from(([192, 0, 2, 1], 9000));
    let seen = |last_seen| {
        Event::Listed(Listed {
            address,
            good: false,
            place: 0,
            last_seen,
        })
    };
    let plan = &mut simulation.plan;
    plan.handle(Duration::ZERO, seen(1000));
    // It cannot be reached, again and again.
    let mut now = Duration::ZERO;
    for _ in 0..8 {
        let failed = loop {
            match plan.poll(now) {
                Some(Order::Hire(id, _)) => break id,
                _ => now += Duration::from_secs(1),
            }
        };
        plan.handle(now, Event::Failed(failed, Failure::Unreachable));
        plan.handle(now, Event::Died(failed));
    }
    plan.handle(now, seen(1000));
    assert_eq!(plan.poll(now + Duration::from_secs(2)), None, "it waits");
    plan.handle(now + Duration::from_secs(2), seen(1100));
    let again = plan.poll(now + Duration::from_secs(2));
    assert!(matches!(again, Some(Order::Hire(..))), "{again:?}");
}
