//! What a peer leaves behind when it goes, and what it stops serving while it stays.

mod common;

use std::fs;
use std::net::SocketAddr;

use common::sample::Sample;
use common::scene::Scene;
use common::{clients, eventually, trackers};

fn sample() -> Sample {
    Sample::new("data", 20 * 1024 + 5, 1024)
}

#[test]
fn a_peer_that_is_stopped_is_not_listed_any_more() {
    let (scene, sample) = (Scene::new(), sample());
    let tracker = scene.tracker();
    sample.write_data(&scene.path(""));
    let cascade = sample.write_cascade(&scene.path(""));
    let peer = scene
        .cascade("peer")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0"])
        .arg(&cascade)
        .serve();
    let listed = || trackers::list(tracker.address(), &sample.hash());
    eventually("the peer is listed", || {
        listed()
            .into_iter()
            .map(SocketAddr::from)
            .eq([peer.address()])
    });
    peer.stop().assert_no_error();
    assert_eq!(listed(), [], "it has said farewell before it ended");
    tracker.stop();
    scene.assert_nothing_left();
}

#[test]
fn a_complete_file_that_somebody_writes_to_is_not_served_any_more() {
    let (scene, sample) = (Scene::new(), sample());
    sample.write_data(&scene.path(""));
    let cascade = sample.write_cascade(&scene.path(""));
    let peer = scene
        .cascade("peer")
        .args(["-l", "127.0.0.1:0"])
        .arg(&cascade)
        .serve();
    let ask =
        || clients::ask(peer.address(), &clients::request(&sample.hash(), 3)).expect("an answer");
    assert_eq!(ask().0, 0);
    let mut changed = sample.bytes.clone();
    changed[3 * 1024 + 7] ^= 1;
    fs::write(scene.path("data"), changed).expect("it can be written");
    assert_eq!(ask().0, 2, "what was verified is not what would be sent");
}

#[test]
fn a_download_goes_on_serving_for_the_time_that_it_was_told() {
    let (scene, sample) = (Scene::new(), sample());
    let tracker = scene.tracker();
    let source = scene.directory("source");
    sample.write_data(&source);
    let seed = scene
        .cascade("peer")
        .args(["-l", "127.0.0.1:0"])
        .arg(sample.write_cascade(&source))
        .serve();
    let cascade = sample.write_cascade(&scene.path(""));
    let get = |time: &str| {
        scene
            .cascade("get")
            .tracker(tracker.address())
            .peer(seed.address())
            .args(["-l", "127.0.0.1:0", "--seed-for", time])
            .arg(&cascade)
            .start()
    };
    let long = get("1h");
    eventually("it is complete and still serves", || {
        let peers = trackers::list(tracker.address(), &sample.hash());
        peers.first().is_some_and(|peer| {
            clients::ask((*peer).into(), &clients::request(&sample.hash(), 20))
                .is_ok_and(|(status, body)| status == 0 && Some(&body[..]) == sample.block(20))
        })
    });
    drop(long);
    let short = get("0").finish().assert_code(0);
    assert_eq!(short.results(), [sample.line(&scene.path("data"))]);
}
