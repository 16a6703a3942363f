//! A source that registers addresses of its choice cannot keep a file from those who ask a tracker for it.

mod common;

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use common::peers;
use common::sample::Sample;
use common::scene::Scene;
use common::trackers;

/// Registers a peer; returns the status of the response, and the message of a refusal.
fn subscribe(tracker: SocketAddr, sample: &Sample, peer: SocketAddrV4) -> (u8, String) {
    let request = trackers::request(2, &sample.hash(), peer);
    let (status, body) = trackers::ask(tracker, &request).expect("a response");
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[test]
fn one_source_has_a_small_share_for_other_addresses_and_is_named_last() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 100_000, 1000));
    let cascade = sample.write_cascade(&scene.path(""));
    let tracker = scene.cascade("tracker").args(["-l", "127.0.0.1:0"]);
    let tracker = tracker.arg(&cascade).serve();
    let seed = peers::start(&sample, peers::keeps_the_connection_open);
    let SocketAddr::V4(address) = seed.address() else {
        panic!("an IPv4 address")
    };
    let (mut registered, mut refusal) = (0, String::new());
    for number in 0..300u32 {
        // Nobody is there: addresses for documentation.
        let peer = SocketAddrV4::new((0xc633_6400 + number % 256).into(), 9000 + number as u16);
        match subscribe(tracker.address(), &sample, peer) {
            (0, _) => registered += 1,
            (_, message) => refusal = message,
        }
    }
    assert_eq!(registered, 256);
    assert!(refusal.contains("other addresses"), "{refusal}");
    // The source itself is not kept from registering what is its own.
    assert_eq!(subscribe(tracker.address(), &sample, address).0, 0);
    for _ in 0..50 {
        let listed = trackers::list(tracker.address(), &sample.hash());
        assert_eq!((listed[0], listed.len()), (address, 20));
    }
    let get = scene.cascade("get").tracker(tracker.address());
    let get = get.args(["--no-serve", "-o", "copy"]).arg(&cascade);
    get.run()
        .assert_code(0)
        .assert_within(Duration::from_secs(30));
    sample.assert_complete(&scene.path("copy"));
}
