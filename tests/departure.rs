//! What a peer leaves behind when it goes, and what it stops serving while it stays.

mod common;

use std::fs;
use std::net::SocketAddr;

use common::process::Process;
use common::sample::Sample;
use common::scene::{Invocation, Scene};
use common::standin::Accepts;
use common::{clients, eventually, peers, trackers};
use nix::sys::signal::Signal;

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

/// Starts the program as from a terminal, whatever whoever runs the tests does with hang-ups.
fn with_hangups<'a>(scene: &'a Scene, command: &str) -> Invocation<'a> {
    let env = scene.program("env").arg("--default-signal=HUP");
    env.args([env!("CARGO_BIN_EXE_cascade"), command])
}

/// The terminal goes away: it says so, and its shell does.
fn hang_up(process: &Process) {
    process.signal(Signal::SIGHUP);
    process.signal(Signal::SIGHUP);
}

#[test]
fn a_share_whose_terminal_goes_away_is_not_listed_any_more() {
    let (scene, sample) = (Scene::new(), sample());
    let tracker = scene.tracker();
    sample.write_cascade(&scene.path(""));
    let share = with_hangups(&scene, "share")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0"])
        .arg(sample.write_data(&scene.path("")))
        .start();
    let listed = || trackers::list(tracker.address(), &sample.hash()).len();
    eventually("the peer is listed", || listed() == 1);
    eventually("the link is printed", || share.stdout().contains('\n'));
    hang_up(&share);
    share.finish().assert_code(0).assert_no_error();
    assert_eq!(listed(), 0, "it has said farewell before it ended");
    tracker.stop();
    scene.assert_nothing_left();
}

#[test]
fn a_download_whose_terminal_goes_away_is_not_listed_any_more_and_keeps_its_blocks() {
    let (scene, sample) = (Scene::new(), sample());
    let tracker = scene.tracker();
    let stalls = peers::start_with(Accepts::Together, &sample, peers::stalls_after(5));
    let cascade = sample.write_cascade(&scene.path(""));
    let get = with_hangups(&scene, "get")
        .tracker(tracker.address())
        .peer(stalls.address())
        .args(["-l", "127.0.0.1:0"])
        .arg(&cascade)
        .start();
    let listed = || trackers::list(tracker.address(), &sample.hash()).len();
    eventually("the peer is listed", || listed() == 1);
    let part = sample.part(&scene.path("data"));
    let has_a_block = |bytes: Vec<u8>| {
        let mut blocks = bytes.chunks(1024).zip(sample.bytes.chunks(1024));
        blocks.any(|(there, right)| there == right)
    };
    eventually("a block is there", || {
        fs::read(&part).is_ok_and(has_a_block)
    });
    hang_up(&get);
    get.finish().assert_signal(Signal::SIGHUP).assert_no_error();
    assert_eq!(listed(), 0, "it has said farewell before it ended");
    assert!(
        fs::read(&part).is_ok_and(has_a_block),
        "the blocks are kept"
    );
    tracker.stop();
    scene.assert_nothing_left();
}

#[test]
fn a_search_for_a_cascade_file_ends_when_its_terminal_goes_away() {
    let (scene, sample) = (Scene::new(), sample());
    let tracker = trackers::start(|conn, _| conn.hang());
    let get = with_hangups(&scene, "get")
        .tracker(tracker.address())
        .args(["--no-serve", "-o", "data"])
        .arg(sample.hex())
        .start();
    eventually("the tracker is asked", || !tracker.asked().is_empty());
    hang_up(&get);
    get.finish().assert_signal(Signal::SIGHUP);
    scene.assert_nothing_left();
}

#[test]
fn what_nohup_starts_survives_its_terminal() {
    let (scene, sample) = (Scene::new(), sample());
    let tracker = scene.tracker();
    let nohup = |command| {
        let nohup = scene.program("nohup");
        let nohup = nohup.args([env!("CARGO_BIN_EXE_cascade"), command]);
        nohup.tracker(tracker.address())
    };
    let source = scene.directory("source");
    sample.write_cascade(&source);
    let share = nohup("share").args(["-l", "127.0.0.1:0"]);
    let mut share = share.arg(sample.write_data(&source)).start();
    eventually("the link is printed", || share.stdout().contains('\n'));
    let other = Sample::new("other", 5000, 1024);
    let get = nohup("get").arg("--no-serve");
    let mut get = get.arg(other.write_cascade(&scene.path(""))).start();
    eventually("it is at work", || {
        other.part(&scene.path("other")).exists()
    });
    hang_up(&share);
    hang_up(&get);
    // It looks at its signals once more before it says how it is.
    get.signal(Signal::SIGUSR1);
    eventually("it says how it is", || get.stderr().contains("status: "));
    assert!(get.ended().is_none());
    // What is shared is still there.
    let second = scene.cascade("get").tracker(tracker.address());
    let cascade = sample.write_cascade(&scene.path(""));
    second.arg("--no-serve").arg(cascade).run().assert_code(0);
    sample.assert_complete(&scene.path("data"));
    assert!(share.ended().is_none());
    share.signal(Signal::SIGTERM);
    share.finish().assert_code(0);
    get.signal(Signal::SIGTERM);
    get.finish().assert_signal(Signal::SIGTERM);
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
