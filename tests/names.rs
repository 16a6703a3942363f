//! Names with several addresses, of which not all answer. The names stand in a hosts file in a mount namespace.

mod common;

use std::fs;
use std::net::{SocketAddr, TcpListener};

use common::sample::Sample;
use common::scene::{Invocation, Scene};
use common::skip;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cascade");
/// Of these two nobody listens at the first.
const HOSTS: &str = "::1 several.test\n127.0.0.1 several.test\n";

/// A scene with a hosts file; nothing where there can be no mount namespace.
fn scene() -> Option<Scene> {
    let scene = Scene::new();
    fs::write(scene.path("hosts"), HOSTS).expect("a hosts file");
    let tried = scene.program("unshare").args(["-m", "true"]).run();
    if !tried.status.success() {
        skip("only root has a hosts file of its own");
        return None;
    }
    Some(scene)
}

/// A command that sees the scene's hosts file.
fn with_hosts<'a>(scene: &'a Scene, command: &str) -> Invocation<'a> {
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let unshare = scene.program("unshare").args(["-m", "sh", "-c", script]);
    unshare.arg(scene.path("hosts")).arg(PROGRAM).arg(command)
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
