//! How complete each peer's file is: a tracker that is to tell asks its peers, modestly, and believes little.

mod common;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};

use common::peers::{self, announced, has_all_and_knows_the_map, response};
use common::process::Server;
use common::sample::Sample;
use common::scene::{Invocation, Scene};
use common::standin::{Accepts, Conn};
use common::{eventually, procfs, trackers};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A map of a response.
const MAP: u8 = 5;

/// How many blocks a peer has, and whether that is all.
type Told = (Option<u64>, Option<bool>);

/// A tracker of this file that tells how it is.
fn tracker<'a>(scene: &'a Scene, sample: &Sample) -> Invocation<'a> {
    scene
        .cascade("tracker")
        .args(["-l", "127.0.0.1:0", "--control", "control"])
        .arg(sample.write_cascade(&scene.path("")))
}

/// What the tracker tells of the only file.
#[track_caller]
fn file(scene: &Scene) -> Value {
    let asked = scene.cascade("status").args(["--json", "control"]).run();
    let told: Value = serde_json::from_str(&asked.assert_code(0).stdout).expect("JSON");
    told["files"][0].clone()
}

/// What the tracker tells of a peer: how many blocks it has, and whether that is all.
#[track_caller]
fn told_of(scene: &Scene, peer: SocketAddr) -> Told {
    let file = file(scene);
    let registered = file["registered"].as_array().expect("a list");
    let address = peer.to_string();
    let peer = registered.iter().find(|peer| peer["address"] == *address);
    let peer = peer.expect("it is registered");
    (peer["present"].as_u64(), peer["complete"].as_bool())
}

/// Registers a peer from 127.0.0.1.
#[track_caller]
fn register(tracker: &Server, sample: &Sample, peer: SocketAddr) {
    let SocketAddr::V4(peer) = peer else {
        panic!("it has an IPv4 address");
    };
    let request = trackers::request(2, &sample.hash(), peer);
    let answer = trackers::ask(tracker.address(), &request).expect("an answer");
    assert_eq!(answer.0, 0, "{answer:?}");
}

#[test]
fn how_much_each_peer_has_is_told_while_it_downloads() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 100_000, 1000));
    let tracker = tracker(&scene, &sample)
        .args(["--http", "127.0.0.1:0"])
        .serve();
    let part = scene.directory("part");
    let half: Vec<u8> = fs::read(sample.write_data(&scene.directory("there")))
        .expect("it is there")[..50_000]
        .into();
    fs::write(sample.part(&part.join("data")), half).expect("written");
    let downloads = scene
        .cascade("peer")
        .args(["-l", "127.0.0.1:0"])
        .tracker(tracker.address())
        .arg(sample.write_cascade(&part))
        .serve();
    eventually("it has half of it", || {
        file(&scene)["peers"] == 1
            && told_of(&scene, downloads.address()) == (Some(50), Some(false))
    });
    let seed = scene
        .cascade("peer")
        .args(["-l", "127.0.0.1:0"])
        .tracker(tracker.address())
        .arg(sample.write_cascade(&scene.path("there")))
        .serve();
    eventually("both have all of it", || {
        let file = file(&scene);
        file["peers"] == 2 && file["complete"] == 2
    });
    assert_eq!(told_of(&scene, seed.address()), (Some(100), Some(true)));
    let report = scene.cascade("status").arg("control").run().assert_code(0);
    assert!(
        report.stdout.contains("2 known to have all 100 blocks"),
        "{report:#?}"
    );
    downloads.stop();
    seed.stop();
    eventually("those who left are not told of", || {
        file(&scene)["peers"] == 0
    });
    tracker.stop();
    scene.assert_nothing_left();
}

/// A peer that has three blocks, and so is asked again and again.
fn has_three() -> impl Fn(&mut Conn, &Sample) -> io::Result<()> + Send + Sync + 'static {
    peers::has_some_and_knows_the_map(|block| block < 3)
}

#[test]
fn whoever_was_registered_by_another_is_not_asked_and_keeps_nobody_waiting() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let tracker = tracker(&scene, &sample)
        .args(["--max-peers", "400000"])
        .serve();
    let victim = TcpListener::bind("127.0.0.2:0").expect("all of 127/8 is ours");
    victim
        .set_nonblocking(true)
        .expect("a socket takes options");
    let strangers = (1..=1500).map(|port| SocketAddr::from(([127, 0, 0, 3], port)));
    // More than are told of, before all others.
    for stranger in strangers.take(1100).chain(victim.local_addr()) {
        register(&tracker, &sample, stranger);
    }
    let peer = peers::start_with(Accepts::Together, &sample, has_three());
    register(&tracker, &sample, peer.address());
    // By then all have had their turn.
    eventually("the one that registered itself was asked twice", || {
        peer.connections() == 2
    });
    let asked = victim.accept().map_err(|error| error.kind());
    assert!(matches!(asked, Err(io::ErrorKind::WouldBlock)), "{asked:?}");
    peer.assert_well_treated();
    tracker.stop();
}

#[test]
fn a_peer_that_closes_once_is_known_and_asked_again() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let tracker = tracker(&scene, &sample).serve();
    let talk = has_three();
    let peer = peers::start_with(Accepts::Together, &sample, move |conn, sample| {
        match conn.number() {
            1 => conn.request(sample).map(drop),
            _ => talk(conn, sample),
        }
    });
    register(&tracker, &sample, peer.address());
    let is_told = || told_of(&scene, peer.address()) == (Some(3), Some(false));
    eventually("it has three blocks", is_told);
    eventually("it has closed", || peer.connections() == 2);
    eventually("it is asked again", || {
        assert!(is_told(), "what it said is not forgotten");
        peer.connections() == 3
    });
    tracker.stop();
}

#[test]
fn where_nobody_is_to_be_asked_nobody_is() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let peer = peers::start(&sample, has_all_and_knows_the_map);
    let tracker = tracker(&scene, &sample).args(["--survey", "0"]).serve();
    register(&tracker, &sample, peer.address());
    // Those who tell are there, and no other process: nobody who would ask later.
    assert_eq!(told_of(&scene, peer.address()), (None, None));
    assert_eq!(surveyor(&tracker), None);
    tracker.stop();
}

/// The process that asks: of those below the reporter, the one that listens nowhere.
fn surveyor(tracker: &Server) -> Option<Pid> {
    let keeper = procfs::children(tracker.process().pid());
    let reporter = keeper.into_iter().flat_map(procfs::children);
    let mut below = reporter.flat_map(procfs::children);
    below.find(|pid| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
        let links = descriptors.into_iter().flatten().flatten();
        let mut links = links.filter_map(|fd| fs::read_link(fd.path()).ok());
        !links.any(|link| link.to_string_lossy().starts_with("socket:"))
    })
}

/// What a peer says to the question.
type Says = fn(&Sample) -> Vec<u8>;

/// What peers say, and what is made of it.
const ANSWERS: [(&str, Says, Told); 8] = [
    ("all", |_| response(MAP, &[]), (Some(10), Some(true))),
    (
        "three",
        |_| response(MAP, &[0b0110_0000, 0b0100_0000]),
        (Some(3), Some(false)),
    ),
    ("none", |_| response(MAP, &[0, 0]), (Some(0), Some(false))),
    ("too short", |_| response(MAP, &[0xff]), (None, None)),
    ("too many", |_| response(MAP, &[0xff, 0xff]), (None, None)),
    (
        "too long",
        |_| announced(MAP, 1 << 40, &[0xff; 4096]),
        (None, None),
    ),
    (
        "a block",
        |sample| response(0, sample.block(0).expect("it is there")),
        (None, None),
    ),
    (
        "nonsense",
        |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".into(),
        (None, None),
    ),
];

#[test]
fn of_what_peers_say_only_what_makes_sense_is_told() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let tracker = tracker(&scene, &sample).serve();
    let silent = peers::start(&sample, |conn, sample| {
        conn.request(sample)?;
        conn.hang()
    });
    register(&tracker, &sample, silent.address());
    let peers = ANSWERS.map(|(name, answer, expected)| {
        let answer = answer(&sample);
        let peer = peers::start_with(Accepts::Together, &sample, move |conn, sample| {
            while conn.request(sample)?.is_some() {
                conn.send(&answer)?;
            }
            Ok(())
        });
        register(&tracker, &sample, peer.address());
        (peer, name, expected)
    });
    eventually("all were asked", || {
        peers.iter().all(|(peer, _, _)| !peer.asked().is_empty())
    });
    let last = peers::start(&sample, has_all_and_knows_the_map);
    register(&tracker, &sample, last.address());
    eventually("another one is told of", || {
        told_of(&scene, last.address()) == (Some(10), Some(true))
    });
    for (peer, name, expected) in &peers {
        assert_eq!(told_of(&scene, peer.address()), *expected, "{name}");
        // A peer without the extension sends the block that is named.
        assert!(
            peer.asked().iter().all(|asked| asked.block() == 9),
            "{name}"
        );
    }
    assert_eq!(told_of(&scene, silent.address()), (None, None));
    tracker.stop();
    scene.assert_nothing_left();
}

#[test]
fn who_asks_may_be_killed_and_asks_again() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let tracker = tracker(&scene, &sample).serve();
    let peer = peers::start(&sample, has_all_and_knows_the_map);
    register(&tracker, &sample, peer.address());
    let is_told = || told_of(&scene, peer.address()) == (Some(10), Some(true));
    eventually("it is told", is_told);
    let killed = surveyor(&tracker).expect("it runs");
    kill(killed, Signal::SIGKILL).expect("it is ours");
    eventually("another one asked", || peer.connections() == 2 && is_told());
    let stopped = tracker.stop();
    let said = "the process that asks peers how much they have ended: signal 9 (SIGKILL); it is started again";
    assert_eq!(stopped.stderr.matches(said).count(), 1, "{stopped:#?}");
    scene.assert_nothing_left();
}

#[test]
fn a_peer_of_an_unknown_file_is_told_of_as_far_as_it_can_be() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let tracker = scene
        .cascade("tracker")
        .args(["--open", "-l", "127.0.0.1:0"]);
    let tracker = tracker.args(["--control", "control"]).serve();
    let peer = peers::start_with(Accepts::Together, &sample, has_three());
    register(&tracker, &sample, peer.address());
    eventually("it has three blocks of who knows how many", || {
        told_of(&scene, peer.address()) == (Some(3), None)
    });
    tracker.stop();
}
