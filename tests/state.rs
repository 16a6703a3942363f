//! The tracker's state file: whose it is, and what is beside it.

mod common;

use std::fs;

use common::process::{Process, Server};
use common::scene::Scene;
use common::{eventually, procfs, trackers};
use nix::sys::signal::{Signal, kill};

const HASH: [u8; 32] = [7; 32];

fn start(scene: &Scene, state: &str) -> Process {
    let tracker = scene.cascade("tracker").args(["--open", "--state", state]);
    tracker.args(["-l", "127.0.0.1:0"]).start()
}

fn serve(scene: &Scene, state: &str) -> Server {
    Server::new(start(scene, state))
}

#[test]
fn a_second_tracker_is_told_which_one_has_the_state() {
    let scene = Scene::new();
    let first = serve(&scene, "peers");
    let pid = first.process().pid();
    std::os::unix::fs::symlink("peers", scene.path("link")).expect("a link");
    for name in ["peers", "link"] {
        let second = start(&scene, name).finish().assert_code(1);
        assert_eq!(
            second.error(),
            format!(
                "cascade: cannot use the state {name}: it is used by another tracker (pid {pid}); \
                 stop that one, or name another file"
            )
        );
    }
    serve(&scene, "others").stop();
    first.stop();
    serve(&scene, "peers").stop();
}

#[test]
fn what_a_killed_tracker_left_hinders_nobody() {
    let scene = Scene::new();
    for _ in 0..5 {
        let tracker = serve(&scene, "peers");
        tracker.kill().assert_signal(Signal::SIGKILL);
    }
    serve(&scene, "peers").stop();
}

#[test]
fn a_tracker_has_its_state_though_the_process_that_writes_it_is_killed() {
    let scene = Scene::new();
    let first = serve(&scene, "peers");
    let writer = || {
        let mut children = procfs::children(first.process().pid()).into_iter();
        children.find_map(|keeper| procfs::children(keeper).first().copied())
    };
    eventually("it has a writer", || writer().is_some());
    let killed = writer().expect("it has one");
    kill(killed, Signal::SIGKILL).expect("it lives");
    eventually("there is another one", || {
        writer().is_some_and(|writer| writer != killed)
    });
    start(&scene, "peers").finish().assert_code(1);
    let peer = "127.0.0.1:1".parse().expect("an address");
    let request = trackers::request(2, &HASH, peer);
    let (status, _) = trackers::ask(first.address(), &request).expect("an answer");
    assert_eq!(status, 0);
    first.stop();
    let saved = fs::read_to_string(scene.path("peers")).expect("a state");
    assert!(saved.contains(" 127.0.0.1:1 "), "{saved}");
}

#[test]
fn what_a_killed_writer_left_beside_the_state_is_removed_and_nothing_else() {
    let scene = Scene::new();
    let left = ".peers.cascade-0123456789abcdef.tmp";
    let others = [
        ".other.cascade-0123456789abcdef.tmp",
        ".peers.cascade-1.tmp",
    ];
    for name in [&[left][..], &others].concat() {
        fs::write(scene.path(name), "half").expect("a file");
    }
    serve(&scene, "peers").stop();
    assert!(!scene.path(left).exists());
    for other in others {
        assert!(scene.path(other).exists(), "{other}");
    }
}
