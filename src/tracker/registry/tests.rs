use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;
use proptest::prelude::*;

use super::*;
use crate::wire::tracker::{MAX_RECORDS, NOBODY, PeerRecord};

const TTL: u32 = 100;

fn hash(n: u8) -> CascadeHash {
    CascadeHash([n; 32])
}

fn named(hashes: impl IntoIterator<Item = u8>) -> Tracked {
    Tracked::Named(hashes.into_iter().map(hash).collect())
}

fn peer(n: u32) -> SocketAddrV4 {
    SocketAddrV4::new((0x0a00_0000 + n).into(), 1000)
}

fn source(n: u32) -> IpAddr {
    IpAddr::V4((0xc000_0200 + n).into())
}

fn registry(capacity: u32, tracked: &Tracked) -> Registry {
    Registry::new(capacity, TTL, tracked, RandomState::new()).expect("memory")
}

fn list(registry: &Registry, of: u8, now: u32) -> Vec<PeerRecord> {
    registry
        .view()
        .list(&hash(of), NOBODY, now, &mut Rng::with_seed(1))
        .expect("a list")
}

#[test]
fn a_subscriber_is_listed_until_it_expires_or_leaves() {
    let mut registry = registry(16, &named([1, 2]));
    registry
        .subscribe(&hash(1), peer(1), source(1), false, 50)
        .expect("room");
    let expected = PeerRecord {
        address: peer(1),
        last_seen: 50,
        good: false,
    };
    assert_eq!(list(&registry, 1, 50 + TTL - 1), [expected]);
    assert_eq!(list(&registry, 1, 50 + TTL), []);
    assert_eq!(list(&registry, 2, 50), []);
    assert!(registry.unsubscribe(&hash(1), peer(1)));
    assert!(!registry.unsubscribe(&hash(1), peer(1)));
    assert_eq!(list(&registry, 1, 50), []);
}

#[test]
fn who_asks_is_left_out() {
    let mut registry = registry(16, &Tracked::Any);
    for n in 1..=2 {
        registry
            .subscribe(&hash(1), peer(n), source(n), false, 0)
            .expect("room");
    }
    let listed = registry
        .view()
        .list(&hash(1), peer(1), 0, &mut Rng::with_seed(1))
        .expect("a list");
    assert_eq!(
        listed
            .iter()
            .map(|record| record.address)
            .collect::<Vec<_>>(),
        [peer(2)]
    );
}

#[test]
fn a_hash_that_is_not_tracked_is_refused_but_any_in_an_open_tracker() {
    let mut closed = registry(16, &named([1]));
    let mut rng = Rng::with_seed(1);
    assert_eq!(
        closed.subscribe(&hash(2), peer(1), source(1), false, 0),
        Err(Refusal::NotTracked)
    );
    assert_eq!(
        closed.view().list(&hash(2), NOBODY, 0, &mut rng),
        Err(Refusal::NotTracked)
    );
    assert!(closed.view().tracks(&hash(1)) && !closed.view().tracks(&hash(2)));
    let open = registry(16, &Tracked::Any);
    assert_eq!(open.view().list(&hash(2), NOBODY, 0, &mut rng), Ok(vec![]));
    assert!(open.view().tracks(&hash(2)));
}

#[test]
fn good_peers_come_first_and_the_sample_is_random_and_has_no_doubles() {
    let mut registry = registry(1000, &named([1]));
    for n in 0..600 {
        registry
            .subscribe(&hash(1), peer(n), source(n), n % 200 == 0, 0)
            .expect("room");
    }
    let view = registry.view();
    let mut seen = BTreeSet::new();
    for seed in 0..500 {
        let listed = view
            .list(&hash(1), NOBODY, 0, &mut Rng::with_seed(seed))
            .expect("a list");
        let addresses: BTreeSet<_> = listed.iter().map(|record| record.address).collect();
        assert_eq!(addresses.len(), MAX_RECORDS);
        assert!(
            listed
                .iter()
                .enumerate()
                .all(|(n, record)| record.good == (n < 3))
        );
        seen.extend(addresses);
    }
    assert!(
        seen.len() > 590,
        "only {} of 600 were ever listed",
        seen.len()
    );
}

#[test]
fn more_good_peers_than_fit_are_drawn_from() {
    let mut registry = registry(1000, &named([1]));
    for n in 0..300 {
        registry
            .subscribe(&hash(1), peer(n), source(n), n < 150, 0)
            .expect("room");
    }
    let listed = list(&registry, 1, 0);
    assert_eq!(listed.len(), MAX_RECORDS);
    assert!(listed.iter().all(|record| record.good));
}

#[test]
fn one_source_cannot_fill_the_registry_nor_can_one_hash() {
    let mut registry = registry(64, &named([1, 2, 3, 4]));
    let mut subscribe =
        |of, n, from| registry.subscribe(&hash(of), peer(n), source(from), false, 0);
    for n in 0..16 {
        assert_eq!(subscribe(1 + (n % 2) as u8, n, 1), Ok(()));
    }
    assert_eq!(subscribe(3, 99, 1), Err(Refusal::SourceShare));
    // A renewal needs no room.
    assert_eq!(subscribe(1, 0, 1), Ok(()));
    for n in 0..8 {
        assert_eq!(subscribe(1, 100 + n, 2), Ok(()));
    }
    assert_eq!(subscribe(1, 200, 2), Err(Refusal::HashShare));
}

#[test]
fn a_full_registry_refuses_and_sweeping_makes_room() {
    let mut registry = registry(4, &named([1]));
    for n in 0..4 {
        registry
            .subscribe(&hash(1), peer(n), source(n), false, n)
            .expect("room");
    }
    let late =
        |registry: &mut Registry| registry.subscribe(&hash(1), peer(9), source(9), false, TTL);
    assert_eq!(late(&mut registry), Err(Refusal::Full));
    assert_eq!(
        registry.view().would_accept(&hash(1), peer(9), source(9)),
        Err(Refusal::Full)
    );
    assert_eq!(registry.sweep(TTL, 100), 1);
    assert_eq!(late(&mut registry), Ok(()));
}

#[test]
fn a_sweep_looks_at_no_more_records_than_it_may_and_comes_round() {
    let mut registry = registry(100, &named([1]));
    for n in 0..100 {
        registry
            .subscribe(&hash(1), peer(n), source(n), false, 0)
            .expect("room");
    }
    for round in 1..=10 {
        assert_eq!(registry.sweep(TTL, 10), 10);
        assert_eq!(registry.view().len(), 100 - 10 * round);
    }
}

/// Once round.
fn review(registry: &mut Registry, judge: Judge<'_>) -> u32 {
    let (mut removed, mut left) = (0, registry.extent());
    while left > 0 {
        let swept = registry.review(0, 3, judge);
        assert!(swept.removed + swept.passed <= 3);
        removed += swept.removed;
        left = left.saturating_sub(swept.passed);
    }
    removed
}

#[test]
fn other_files_are_tracked_without_a_loss_for_those_that_stay() {
    let mut registry = registry(1000, &named([1, 2]));
    for n in 0..60 {
        let file = 1 + (n % 2) as u8;
        let subscribed = registry.subscribe(&hash(file), peer(n), source(n), false, 0);
        subscribed.expect("room");
    }
    let tracked = named([2, 3]);
    assert!(registry.track(&tracked));
    registry
        .subscribe(&hash(3), peer(99), source(99), false, 0)
        .expect("the new one is tracked");
    let judge = |file: &CascadeHash, _, _| (*file != hash(1)).then_some(false);
    assert_eq!(review(&mut registry, &judge), 30);
    assert_eq!(
        (list(&registry, 2, 0).len(), list(&registry, 3, 0).len()),
        (20, 1)
    );
    assert!(!registry.view().tracks(&hash(1)));
    // As often as you like: what is not tracked any more leaves nothing behind.
    let only = |file: &CascadeHash, _, _| (*file == hash(2)).then_some(false);
    assert_eq!(review(&mut registry, &only), 1);
    for n in 10..250 {
        assert!(registry.track(&named([2, n])), "{n}");
        registry
            .subscribe(&hash(n), peer(99), source(99), false, 0)
            .expect("room");
        assert_eq!(review(&mut registry, &only), 1);
        assert_eq!(registry.view().len(), 30);
    }
    // One that comes back before its peers are gone has them again.
    assert!(registry.track(&named([4])));
    assert!(registry.track(&named([2])));
    assert_eq!(list(&registry, 2, 0).len(), 20);
    let many = Tracked::Named(
        (0..1000u32)
            .map(|n| CascadeHash::of(&n.to_be_bytes()))
            .collect(),
    );
    assert!(!registry.track(&many), "there is no room for so many");
    assert_eq!(list(&registry, 2, 0).len(), 20);
}

#[test]
fn a_judge_decides_who_is_a_good_one() {
    let mut registry = registry(1000, &named([1]));
    for n in 0..50 {
        let subscribed = registry.subscribe(&hash(1), peer(n), source(n), n % 3 == 0, 0);
        subscribed.expect("room");
    }
    let is_good = |peer: SocketAddrV4| peer.ip().octets()[3].is_multiple_of(5);
    assert_eq!(review(&mut registry, &|_, peer, _| Some(is_good(peer))), 0);
    // Ten are: the others follow, and none is lost.
    let good = list(&registry, 1, 0)
        .iter()
        .filter(|peer| peer.good)
        .count();
    assert_eq!((good, registry.view().len()), (10, 50));
}

#[test]
fn a_record_from_the_future_does_not_stay_for_ever() {
    let mut registry = registry(4, &named([1]));
    registry
        .subscribe(&hash(1), peer(1), source(1), false, u32::MAX)
        .expect("room");
    assert_eq!(registry.sweep(1000, 10), 0);
    assert_eq!(registry.sweep(1000 + TTL, 10), 1);
}

#[test]
fn the_files_of_an_open_tracker_are_forgotten_with_their_last_peer() {
    let mut registry = registry(4, &Tracked::Any);
    for round in 0..100u8 {
        registry
            .subscribe(&hash(round), peer(1), source(1), false, 0)
            .expect("room");
        assert!(registry.unsubscribe(&hash(round), peer(1)));
    }
    assert_eq!(registry.free_files.fresh, 1);
}

/// What the issue asks for: a million peers, a thousand files, 64 MiB.
#[test]
fn a_million_peers_fit_into_64_mib_and_are_listed_from() {
    const PEERS: u32 = 1 << 20;
    let hashes: Vec<CascadeHash> = (0..1000u32)
        .map(|n| CascadeHash::of(&n.to_be_bytes()))
        .collect();
    let tracked = Tracked::Named(hashes.iter().copied().collect());
    let mut registry = registry(PEERS, &tracked);
    assert!(registry.tables.bytes() < 60 << 20);
    for n in 0..PEERS {
        registry
            .subscribe(&hashes[n as usize % 1000], peer(n), source(n), false, 0)
            .expect("room");
    }
    assert_eq!(registry.view().len(), PEERS);
    let listed = registry
        .view()
        .list(&hashes[7], NOBODY, 0, &mut Rng::with_seed(1))
        .expect("a list");
    assert_eq!(listed.len(), MAX_RECORDS);
}

/// Readers see only what belongs together: each file has peers of its own network, whose port says when they came.
#[test]
fn readers_never_see_half_of_a_change() {
    let mut registry = registry(64, &Tracked::Any);
    let done = AtomicBool::new(false);
    let address = |of: u8, n: u16| SocketAddrV4::new([10, of, 0, 1].into(), n);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let view = registry.view();
            let done = &done;
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed);
                while !done.load(Ordering::Relaxed) {
                    let of = rng.u8(..6);
                    let Ok(listed) = view.list(&hash(of), NOBODY, 0, &mut rng) else {
                        continue;
                    };
                    for record in &listed {
                        assert_eq!(record.address.ip().octets()[1], of);
                        assert_eq!(u32::from(record.address.port()), record.last_seen);
                    }
                    let _ = view.would_accept(&hash(of), address(of, 1), source(1));
                    for registered in view.registrations() {
                        assert_eq!(
                            registered.hash.0[0],
                            registered.peer.address.ip().octets()[1]
                        );
                    }
                }
            });
        }
        let mut rng = Rng::with_seed(9);
        for _ in 0..100_000 {
            let (of, n) = (rng.u8(..6), rng.u16(..20));
            if rng.bool() {
                let _ = registry.subscribe(
                    &hash(of),
                    address(of, n),
                    source(rng.u32(..9)),
                    rng.bool(),
                    n.into(),
                );
            } else {
                registry.unsubscribe(&hash(of), address(of, n));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[derive(Debug, Clone)]
enum Step {
    Subscribe {
        of: u8,
        peer: u32,
        from: u32,
        good: bool,
    },
    Unsubscribe {
        of: u8,
        peer: u32,
    },
    List {
        of: u8,
        asking: u32,
        seed: u64,
    },
    Wait(u32),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..5, 0u32..12, 0u32..4, any::<bool>())
            .prop_map(|(of, peer, from, good)| Step::Subscribe { of, peer, from, good }),
        2 => (0u8..5, 0u32..12).prop_map(|(of, peer)| Step::Unsubscribe { of, peer }),
        3 => (0u8..5, 0u32..12, any::<u64>())
            .prop_map(|(of, asking, seed)| Step::List { of, asking, seed }),
        1 => (0u32..TTL).prop_map(Step::Wait),
        1 => Just(Step::Sweep),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Known {
    last_seen: u32,
    from: u32,
    good: bool,
}

/// The registry, as simple as it can be.
struct Model {
    shares: Shares,
    named: Option<Vec<u8>>,
    known: BTreeMap<(u8, u32), Known>,
}

impl Model {
    fn subscribe(&mut self, of: u8, peer: u32, new: Known) -> Result<(), Refusal> {
        let from = |from| {
            self.known
                .values()
                .filter(|known| known.from == from)
                .count() as u32
        };
        let room = from(new.from) < self.shares.per_source;
        if let Some(known) = self.known.get_mut(&(of, peer)) {
            let from = if room { new.from } else { known.from };
            *known = Known { from, ..new };
            return Ok(());
        }
        let peers = self.known.range((of, 0)..(of + 1, 0)).count() as u32;
        if self
            .named
            .as_ref()
            .is_some_and(|named| !named.contains(&of))
        {
            return Err(Refusal::NotTracked);
        } else if self.known.len() as u32 >= self.shares.capacity {
            return Err(Refusal::Full);
        } else if peers >= self.shares.per_hash {
            return Err(Refusal::HashShare);
        } else if !room {
            return Err(Refusal::SourceShare);
        }
        self.known.insert((of, peer), new);
        Ok(())
    }

    fn check_list(&self, of: u8, asking: u32, now: u32, listed: &[PeerRecord]) {
        let expected: BTreeMap<SocketAddrV4, Known> = self
            .known
            .range((of, 0)..(of + 1, 0))
            .filter(|((_, n), known)| *n != asking && now - known.last_seen < TTL)
            .map(|((_, n), known)| (peer(*n), *known))
            .collect();
        let different: BTreeSet<_> = listed.iter().map(|record| record.address).collect();
        assert_eq!(different.len(), listed.len());
        assert_eq!(listed.len(), expected.len().min(MAX_RECORDS));
        for record in listed {
            let known = expected[&record.address];
            assert_eq!(
                (record.last_seen, record.good),
                (known.last_seen, known.good)
            );
        }
        assert!(listed.is_sorted_by_key(|record| !record.good));
    }
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(
        steps in proptest::collection::vec(step(), 0..300),
        capacity in 1u32..40,
        named in proptest::option::of(Just(vec![0u8, 1, 2, 3])),
    ) {
        let tracked = named.clone().map_or(Tracked::Any, self::named);
        let mut registry = registry(capacity, &tracked);
        let shares = Shares::new(capacity, named.as_ref().map(Vec::len));
        let mut model = Model { shares, named, known: BTreeMap::new() };
        let mut now = 1000;
        for step in steps {
            match step {
                Step::Subscribe { of, peer: n, from, good } => {
                    let predicted = registry.view().would_accept(&hash(of), peer(n), source(from));
                    let result = registry.subscribe(&hash(of), peer(n), source(from), good, now);
                    prop_assert_eq!(result, predicted);
                    prop_assert_eq!(result, model.subscribe(of, n, Known { last_seen: now, from, good }));
                }
                Step::Unsubscribe { of, peer: n } => {
                    let removed = registry.unsubscribe(&hash(of), peer(n));
                    prop_assert_eq!(removed, model.known.remove(&(of, n)).is_some());
                }
                Step::List { of, asking, seed } => {
                    let listed = registry.view().list(&hash(of), peer(asking), now, &mut Rng::with_seed(seed));
                    match listed {
                        Ok(listed) => model.check_list(of, asking, now, &listed),
                        Err(error) => {
                            prop_assert_eq!(error, Refusal::NotTracked);
                            prop_assert_eq!(of, 4);
                        }
                    }
                }
                Step::Wait(seconds) => now += seconds,
                Step::Sweep => {
                    registry.sweep(now, u32::MAX);
                    model.known.retain(|_, known| now - known.last_seen < TTL);
                }
            }
            prop_assert_eq!(registry.view().len() as usize, model.known.len());
        }
        let saved: BTreeMap<_, _> = registry.view().registrations()
            .map(|one| ((one.hash.0[0], one.peer.address), (one.peer.last_seen, one.peer.good, one.source)))
            .collect();
        let expected: BTreeMap<_, _> = model.known.iter()
            .map(|((of, n), known)| ((*of, peer(*n)), (known.last_seen, known.good, source(known.from))))
            .collect();
        prop_assert_eq!(saved, expected);
    }
}
