//! Errors say what to do next, where that is known: what a person sees who has done the usual things wrong.

mod common;

use std::fs;

use common::process::Finished;
use common::sample::Sample;
use common::scene::Scene;
use common::trackers::{nobody_there, reserved};
use common::{eventually, is_root, skip};

/// A scene with a data file and its cascade file.
fn scene() -> (Scene, Sample) {
    let (scene, sample) = (Scene::new(), Sample::new("data", 5000, 1000));
    sample.write_data(&scene.path(""));
    sample.write_cascade(&scene.path(""));
    (scene, sample)
}

/// Runs these words, which end so and say this.
#[track_caller]
fn says(scene: &Scene, words: &str, status: i32, advice: &str) -> Finished {
    let (command, rest) = words.split_once(' ').unwrap_or((words, ""));
    let done = scene.cascade(command).args(rest.split_whitespace()).run();
    let done = done.assert_code(status);
    assert!(done.stderr.contains(advice), "{words}: {}", done.stderr);
    done
}

#[test]
fn a_tracker_or_peer_that_does_not_run_is_asked_for() {
    let (scene, _) = scene();
    let nobody = nobody_there();
    let tracker = "is 'cascade tracker' running there?";
    says(
        &scene,
        &format!("list -t {nobody} data.cascade"),
        1,
        tracker,
    );
    let get = format!("get -t {nobody} -o got --timeout 1 data.cascade");
    says(&scene, &get, 3, tracker);
    let get = format!("get -p {nobody} -o got --timeout 1 data.cascade");
    says(&scene, &get, 3, "is 'cascade peer' running there?");
}

#[test]
fn a_peer_that_is_tried_again_and_again_is_said_once_and_the_end_says_why() {
    let (scene, _) = scene();
    let nobody = nobody_there();
    let advice = "name another peer (-p) or a tracker (-t)";
    let get = format!("get -p {nobody} -o got data.cascade");
    let done = says(&scene, &get, 3, advice);
    assert_eq!(done.stderr.matches("cannot reach").count(), 1, "{done:?}");
    assert_eq!(
        done.error(),
        format!(
            "cascade: cannot complete got: no peer is left to ask ({nobody}: connection refused); \
             5 of 5 blocks are missing; {advice}"
        )
    );
}

#[test]
fn a_peer_that_comes_to_be_there_is_said_as_well() {
    let (scene, sample) = scene();
    let (_socket, address) = reserved();
    let get = scene.cascade("get").args(["-o", "got", "--timeout", "30"]);
    let get = get.peer(address).arg("data.cascade").start();
    eventually("it is said", || get.stderr().contains("cannot reach"));
    let peer = scene.cascade("peer").args(["-l", &address.to_string()]);
    let peer = peer.arg("data.cascade").serve();
    let done = get.finish().assert_code(0);
    assert_eq!(done.stderr.matches("cannot reach").count(), 1, "{done:?}");
    let back = format!("{address} answers now\n");
    assert_eq!(done.stderr.matches(&back).count(), 1, "{done:?}");
    sample.assert_complete(&scene.path("got"));
    peer.stop();
}

#[test]
fn a_file_that_nobody_has_and_one_that_is_not_tracked_are_told_apart() {
    let (scene, sample) = scene();
    let open = scene.tracker();
    let at = open.address();
    let line = format!(
        "cascade: no peer is registered for data ({}…)\n",
        &sample.hex()[..8]
    );
    let listed = says(&scene, &format!("list -t {at} data.cascade"), 0, &line);
    assert_eq!((&*listed.stdout, listed.stderr), ("", line));
    let advice = "is 'cascade peer' running where the file is?";
    let get = format!("get -t {at} -o got --timeout 1 data.cascade");
    says(&scene, &get, 3, advice);
    let get = format!("get -t {at} -o got --timeout 1 {}", sample.hex());
    says(&scene, &get, 3, "copy it here yourself");
    let other = scene.cascade("tracker").args(["-l", "127.0.0.1:0"]);
    let other = other.arg("ab".repeat(32)).serve();
    let list = format!("list -t {} data.cascade", other.address());
    says(
        &scene,
        &list,
        1,
        "add its cascade file there, or start it with --open",
    );
    open.stop();
    other.stop();
}

#[test]
fn an_address_that_cannot_be_listened_on_has_its_reason() {
    let (scene, _) = scene();
    let other = scene.tracker();
    let at = other.address();
    let advice = "does another server run there? choose another port";
    says(&scene, &format!("tracker --open -l {at}"), 1, advice);
    says(&scene, &format!("peer -l {at} data.cascade"), 1, advice);
    other.stop();
    let elsewhere = "tracker --open -l 192.0.2.1:8888";
    says(&scene, elsewhere, 1, "it is no address of this machine");
    let unknown = "tracker --open -l nowhere.invalid:8888";
    let done = says(&scene, unknown, 1, "cannot resolve nowhere.invalid:8888: ");
    assert!(!done.stderr.contains("failed to lookup"), "{}", done.stderr);
}

#[test]
fn a_port_for_root_alone_says_so() {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first.is_ok_and(|first| first.trim().parse().is_ok_and(|first: u16| first <= 99)) {
        skip("anybody may have any port here");
        return;
    }
    let scene = Scene::new();
    let program = scene.path("cascade");
    fs::copy(env!("CARGO_BIN_EXE_cascade"), &program).expect("the binary");
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(scene.path(""), all).expect("our own directory");
    let tracker = match is_root() {
        true => scene
            .program("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program),
        false => scene.program(program.to_str().expect("text")),
    };
    let done = tracker
        .args(["tracker", "--open", "-l", "127.0.0.1:99"])
        .run();
    let advice = "ports below 1024 are for root: choose a higher one\n";
    assert!(done.stderr.ends_with(advice), "{}", done.stderr);
    done.assert_code(1);
}

#[test]
fn who_names_the_data_instead_of_the_cascade_file_hears_of_it() {
    let (scene, _) = scene();
    let advice = "; did you mean data.cascade?";
    for words in ["info data", "peer data", "list -t localhost:1 data"] {
        says(&scene, words, 1, advice);
    }
    fs::remove_file(scene.path("data.cascade")).expect("it is there");
    let done = says(&scene, "info data", 1, "not a cascade file");
    assert!(!done.stderr.contains("did you mean"), "{}", done.stderr);
}

#[test]
fn a_directory_that_is_not_there_is_named_before_anything_is_tried() {
    let (scene, _) = scene();
    let reason = "cannot use directory none: No such file or directory";
    says(&scene, "get -t localhost:1 -d none data.cascade", 1, reason);
    says(&scene, "peer -d none data.cascade", 1, reason);
    let tracker = "tracker --open -l 127.0.0.1:0 --state none/peers";
    let done = says(&scene, tracker, 1, reason);
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
}

#[test]
fn a_command_line_that_is_wrong_shows_the_right_form() {
    let scene = Scene::new();
    says(
        &scene,
        "get -p localhost data.cascade",
        2,
        "a port is missing: HOST:PORT is needed, such as localhost:8889",
    );
    let nothing = scene.program(env!("CARGO_BIN_EXE_cascade")).run();
    let nothing = nothing.assert_code(2);
    assert!(
        nothing.stderr.contains("\nUsage: cascade <COMMAND>\n"),
        "{nothing:#?}"
    );
    assert!(
        nothing.stderr.contains("cascade share FILE"),
        "{nothing:#?}"
    );
    says(&scene, "echo", 2, "\nUsage: cascade echo <COMMAND>\n");
}
