//! Clients as courses have them written: they ask the tracker once, each peer once for a block, and take "not present"
//! for final. Downloads of this program beside them must not be in their way.

mod common;

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;

use common::sample::Sample;
use common::scene::Scene;
use common::{clients, eventually, trackers};

const CLIENTS: usize = 10;
const DOWNLOADS: usize = 10;

/// Downloads with the habits of such a client; returns how many blocks it lacks at the end.
fn holes(tracker: SocketAddr, sample: &Sample, number: usize) -> usize {
    let peers = trackers::list(tracker, &sample.hash());
    let lacks = |block: &usize| {
        // Each begins with another peer, and stays with whoever answered.
        let peer = peers[(number + block) % peers.len()];
        let request = clients::request(&sample.hash(), *block as u64);
        let response = clients::ask(peer.into(), &request);
        let expected = sample.block(*block as u64);
        !response.is_ok_and(|(status, body)| status == 0 && Some(&body[..]) == expected)
    };
    (0..sample.blocks()).filter(lacks).count()
}

#[test]
fn clients_that_take_not_present_for_final_complete_beside_downloads_that_begin() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 400_000, 10_000));
    let tracker = scene.tracker();
    let cascade = sample.write_cascade(&scene.path(""));
    let seeds = scene.directory("seed");
    sample.write_data(&seeds);
    let seed = scene.cascade("peer").args(["-l", "127.0.0.1:0"]);
    let seed = seed
        .tracker(tracker.address())
        .arg(sample.write_cascade(&seeds))
        .serve();
    let listed = || trackers::list(tracker.address(), &sample.hash()).len();
    eventually("the seed is listed", || listed() == 1);
    let gets: Vec<_> = (0..DOWNLOADS)
        .map(|number| {
            let get = scene.cascade("get").tracker(tracker.address());
            get.arg("-o")
                .arg(scene.path(number.to_string()))
                .arg(&cascade)
                .start()
        })
        .collect();
    let together = Barrier::new(CLIENTS);
    let lacking: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (together, sample, tracker) = (&together, &sample, tracker.address());
                scope.spawn(move || {
                    together.wait();
                    holes(tracker, sample, number)
                })
            })
            .collect();
        let ended = clients
            .into_iter()
            .map(|client| client.join().expect("it ends"));
        ended.filter(|holes| *holes > 0).count()
    });
    assert_eq!(lacking, 0, "of {CLIENTS} clients so many have holes");
    for get in gets {
        get.finish().assert_code(0);
    }
    seed.stop();
}
