//! Names with several addresses, of which not all answer. The names stand in a hosts file in a mount namespace.

mod common;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use common::sample::Sample;
use common::scene::{Invocation, Scene};
use common::{eventually, skip};
use nix::sys::signal::Signal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cascade");
/// Of these two nobody listens at the first.
const HOSTS: &str = "::1 several.test\n127.0.0.1 several.test\n";

/// A scene with a hosts file; nothing where there can be no mount namespace.
fn scene() -> Option<Scene> {
    let scene = Scene::new();
    write_hosts(&scene, HOSTS);
    // There is no name server, which is said at once.
    let nobody = "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n";
    fs::write(scene.path("resolv.conf"), nobody).expect("a file");
    let tried = scene.program("unshare").args(["-m", "true"]).run();
    if !tried.status.success() {
        skip("only root has a hosts file of its own");
        return None;
    }
    Some(scene)
}

/// Into the same file, which others see where it is mounted.
fn write_hosts(scene: &Scene, hosts: &str) {
    fs::write(scene.path("hosts"), hosts).expect("a hosts file");
}

/// A command that sees the scene's hosts file.
fn with_hosts<'a>(scene: &'a Scene, command: &str) -> Invocation<'a> {
    let script = "mount --bind \"$0\" /etc/hosts && mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
    let unshare = scene.program("unshare").args(["-m", "sh", "-c", script]);
    let files = unshare
        .arg(scene.path("hosts"))
        .arg(scene.path("resolv.conf"));
    files.arg(PROGRAM).arg(command)
}

fn named(address: SocketAddr) -> String {
    format!("several.test:{}", address.port())
}

fn sample(scene: &Scene) -> Sample {
    let sample = Sample::new("data", 100_000, 1000);
    sample.write_cascade(&scene.path(""));
    sample.write_data(&scene.path(""));
    sample
}

#[test]
fn every_address_of_a_peer_is_tried() {
    let Some(scene) = scene() else { return };
    let sample = sample(&scene);
    let serve = scene.cascade("peer").args(["-l", "127.0.0.1:0"]);
    let peer = serve.arg("data.cascade").serve();
    let get = with_hosts(&scene, "get")
        .arg("-p")
        .arg(named(peer.address()));
    get.args(["-o", "copy", "data.cascade"])
        .run()
        .assert_code(0);
    sample.assert_complete(&scene.path("copy"));
    peer.stop();
    scene.assert_nothing_left();
}

#[test]
fn every_address_of_a_tracker_is_tried_by_all_who_ask_it() {
    let Some(scene) = scene() else { return };
    let sample = sample(&scene);
    let tracker = scene.tracker();
    let at = named(tracker.address());
    let serve = with_hosts(&scene, "peer").args(["-l", "127.0.0.1:0", "-t", &at]);
    let peer = serve.arg("data.cascade").serve();
    let link = format!("cascade://{at}/{}/copy", sample.hex());
    let get = with_hosts(&scene, "get").arg(link);
    get.run().assert_code(0);
    sample.assert_complete(&scene.path("copy"));
    let list = with_hosts(&scene, "list").args(["-t", &at, "data.cascade"]);
    let listed = list.run().assert_code(0);
    assert!(
        listed.stdout.contains(&peer.address().to_string()),
        "{}",
        listed.stdout
    );
    peer.stop();
    tracker.stop();
    scene.assert_nothing_left();
}

#[test]
fn an_error_names_the_host_and_every_address_that_was_tried() {
    let Some(scene) = scene() else { return };
    sample(&scene);
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("an address");
    drop(nobody);
    let name = named(address);
    let get = with_hosts(&scene, "get").args(["-p", &name, "-o", "copy"]);
    let done = get
        .args(["--timeout", "2s", "data.cascade"])
        .run()
        .assert_code(3);
    let list = with_hosts(&scene, "list").args(["-t", &name, "data.cascade"]);
    let listed = list.run().assert_code(1);
    for said in [done.stderr, listed.stderr] {
        let other = format!("[::1]:{}", address.port());
        for part in [&name, &other, &address.to_string()] {
            assert!(said.contains(part.as_str()), "{part}: {said}");
        }
    }
}

#[test]
fn a_peer_whose_name_gets_another_address_is_found_by_who_downloads() {
    let Some(scene) = scene() else { return };
    let sample = sample(&scene);
    write_hosts(&scene, "127.0.0.2 several.test\n");
    let serve = scene.cascade("peer").args(["-l", "127.0.0.1:0"]);
    let peer = serve.arg("data.cascade").serve();
    let get = with_hosts(&scene, "get").args(["-p", &named(peer.address())]);
    let get = get.args(["--timeout", "60s", "-o", "copy", "data.cascade"]);
    let get = get.start();
    eventually("it is in vain", || {
        get.stderr().contains("cannot reach several.test")
    });
    write_hosts(&scene, HOSTS);
    get.finish_within(Duration::from_secs(60)).assert_code(0);
    sample.assert_complete(&scene.path("copy"));
    peer.stop();
    scene.assert_nothing_left();
}

/// Whether a tracker knows this peer.
fn is_listed(scene: &Scene, tracker: SocketAddr, peer: SocketAddr) -> bool {
    let list = scene.cascade("list").tracker(tracker).arg("data.cascade");
    list.run().stdout.contains(&peer.to_string())
}

#[test]
fn a_tracker_that_moved_is_found_again() {
    let Some(scene) = scene() else { return };
    sample(&scene);
    write_hosts(&scene, "127.0.0.2 several.test\n");
    let tracker = scene.tracker();
    let serve = with_hosts(&scene, "peer").args(["-l", "127.0.0.1:0"]);
    let serve = serve.args(["-t", &named(tracker.address())]);
    let peer = serve.arg("data.cascade").serve();
    eventually("it is in vain", || {
        peer.process().stderr().contains("cannot ask tracker")
    });
    write_hosts(&scene, HOSTS);
    peer.process().signal(Signal::SIGHUP);
    eventually("it is registered", || {
        is_listed(&scene, tracker.address(), peer.address())
    });
    peer.stop();
    tracker.stop();
    scene.assert_nothing_left();
}

#[test]
fn a_daemon_waits_for_a_name_server_and_others_say_what_is_wrong() {
    let Some(scene) = scene() else { return };
    sample(&scene);
    write_hosts(&scene, "127.0.0.1 localhost\n");
    let tracker = scene.tracker();
    let name = named(tracker.address());
    let get = with_hosts(&scene, "get").args(["-t", &name, "-o", "copy", "data.cascade"]);
    let done = get.run().assert_code(1);
    assert!(done.error().contains(&name), "{}", done.stderr);
    let serve = with_hosts(&scene, "peer").args(["-l", "127.0.0.1:0", "-t", &name]);
    let peer = serve.arg("data.cascade").serve();
    let said = peer.process().stderr();
    assert!(
        said.contains(&format!("cannot resolve {name}")) && said.contains("trying again"),
        "{said}"
    );
    // It serves meanwhile.
    let get = scene.cascade("get").peer(peer.address());
    get.args(["-o", "other", "data.cascade"])
        .run()
        .assert_code(0);
    write_hosts(&scene, HOSTS);
    eventually("it is registered", || {
        is_listed(&scene, tracker.address(), peer.address())
    });
    peer.stop();
    tracker.stop();
    scene.assert_nothing_left();
}
