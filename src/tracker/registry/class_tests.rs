//! Who is named first, and who is dropped first: one source cannot keep others from a file.

use std::collections::BTreeSet;
use std::hash::RandomState;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use fastrand::Rng;

use super::{Registry, Tracked};
use crate::hash::CascadeHash;
use crate::tracker::shares::Refusal;
use crate::wire::tracker::{MAX_RECORDS, NOBODY, PeerRecord};

const HASH: CascadeHash = CascadeHash([1; 32]);

fn registry(capacity: u32) -> Registry {
    let tracked = Tracked::Named([HASH].into());
    Registry::new(capacity, 100, &tracked, RandomState::new()).expect("memory")
}

fn address(number: u32) -> Ipv4Addr {
    // A network for each.
    (0x0b00_0001 + (number << 8)).into()
}

fn own(registry: &mut Registry, ip: Ipv4Addr, port: u16) -> Result<(), Refusal> {
    registry.subscribe(&HASH, SocketAddrV4::new(ip, port), ip.into(), false, 0)
}

fn foreign(registry: &mut Registry, peer: u32, from: u32) -> Result<(), Refusal> {
    let peer = SocketAddrV4::new((0x6400_0000 + peer * 300).into(), 80);
    registry.subscribe(&HASH, peer, IpAddr::V4(address(from)), false, 0)
}

fn list(registry: &Registry, seed: u64) -> Vec<PeerRecord> {
    let mut random = Rng::with_seed(seed);
    let listed = registry.view().list(&HASH, NOBODY, 0, &mut random);
    listed.expect("a list")
}

#[test]
fn one_that_registered_itself_is_in_every_list_however_many_others_register() {
    let mut registry = registry(1 << 16);
    let seed = SocketAddrV4::new(address(0), 1000);
    own(&mut registry, *seed.ip(), seed.port()).expect("room");
    let mut refused = 0;
    for source in 1..40 {
        for peer in 0..300 {
            let subscribed = foreign(&mut registry, source * 300 + peer, source);
            refused += u32::from(subscribed == Err(Refusal::ForeignShare));
        }
    }
    assert_eq!(refused, 39 * (300 - 256), "each has a small share");
    for random in 0..200 {
        let listed = list(&registry, random);
        assert_eq!(listed[0].address, seed);
        assert_eq!(listed.len(), MAX_RECORDS, "others follow");
    }
}

#[test]
fn ports_of_one_address_beyond_eight_come_last_and_are_not_named_together() {
    let mut registry = registry(1000);
    for port in 1..=50 {
        own(&mut registry, address(1), port).expect("room");
    }
    let honest = SocketAddrV4::new(address(2), 1000);
    own(&mut registry, *honest.ip(), honest.port()).expect("room");
    for random in 0..100 {
        let listed = list(&registry, random);
        assert_eq!(listed.len(), 9, "eight, and the other one");
        assert!(listed.iter().any(|peer| peer.address == honest));
    }
    // One that leaves makes room for another, when that comes again.
    for port in 1..=8 {
        assert!(registry.unsubscribe(&HASH, SocketAddrV4::new(address(1), port)));
    }
    own(&mut registry, address(1), 50).expect("it is there");
    assert!((0..20).all(|random| {
        list(&registry, random)[..2]
            .iter()
            .any(|peer| peer.address.port() == 50)
    }));
}

#[test]
fn ports_of_this_host_are_as_many_as_you_like() {
    let mut registry = registry(1000);
    for port in 1..=30 {
        own(&mut registry, Ipv4Addr::LOCALHOST, port).expect("room");
    }
    let seen: BTreeSet<_> = (0..200)
        .flat_map(|random| list(&registry, random))
        .map(|peer| peer.address.port())
        .collect();
    assert_eq!(seen.len(), 30);
    assert_eq!(list(&registry, 1).len(), MAX_RECORDS);
}

#[test]
fn networks_do_not_fill_a_list_while_there_are_others() {
    let mut registry = registry(1 << 16);
    for network in 0..3u32 {
        for host in 0..=255 {
            let ip = Ipv4Addr::from(address(network).to_bits() & !0xff | host);
            own(&mut registry, ip, 1000).expect("room");
        }
    }
    let honest = SocketAddrV4::new(address(9), 1000);
    own(&mut registry, *honest.ip(), honest.port()).expect("room");
    for random in 0..200 {
        let listed = list(&registry, random);
        assert_eq!(listed.len(), MAX_RECORDS, "networks fill what is left");
        assert!(listed.iter().any(|peer| peer.address == honest));
    }
}

#[test]
fn whoever_registers_itself_takes_the_place_of_one_registered_by_others() {
    let mut registry = registry(32);
    for peer in 0..16 {
        foreign(&mut registry, peer, 1).expect("room");
        foreign(&mut registry, 100 + peer, 2).expect("room");
    }
    assert_eq!(foreign(&mut registry, 999, 3), Err(Refusal::Full));
    for number in 10..42 {
        own(&mut registry, address(number), 1000).expect("a place");
        assert_eq!(registry.view().len(), 32);
    }
    assert_eq!(own(&mut registry, address(50), 1000), Err(Refusal::Full));
    // Sources that have nothing left are forgotten, and may come again.
    assert!(registry.unsubscribe(&HASH, SocketAddrV4::new(address(10), 1000)));
    foreign(&mut registry, 7, 1).expect("room");
}

#[test]
fn one_whom_others_registered_becomes_its_own_when_it_comes_itself() {
    let mut registry = registry(1000);
    let seed = SocketAddrV4::new(address(7), 1000);
    registry
        .subscribe(&HASH, seed, address(1).into(), false, 0)
        .expect("room");
    for peer in 0..16 {
        foreign(&mut registry, peer, 2).expect("room");
    }
    own(&mut registry, *seed.ip(), seed.port()).expect("it is there");
    assert!((0..20).all(|random| list(&registry, random)[0].address == seed));
    // It stays so, whoever renews it.
    registry
        .subscribe(&HASH, seed, address(1).into(), false, 0)
        .expect("it is there");
    assert!((0..20).all(|random| list(&registry, random)[0].address == seed));
}
