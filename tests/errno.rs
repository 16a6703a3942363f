//! Errors name their object: whatever system call fails, no line is a bare message of the system. Each run has one
//! call fail, the first of its kind in each process, then the second, and so on.

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::sample::Sample;
use common::scene::Scene;
use common::{holds_within, skip};

/// The error that is injected, which nothing here has by itself.
const ERROR: (&str, &str) = ("EDOM", "numerical argument out of domain");
/// Calls that this program makes, and not only the C library before it begins.
const CALLS: [&str; 24] = [
    "openat",
    "pread64",
    "write",
    "pwrite64",
    "fstat",
    "statx",
    "fsync",
    "ftruncate",
    "fallocate",
    "socket",
    "bind",
    "listen",
    "connect",
    "sendto",
    "recvfrom",
    "getsockname",
    "setsockopt",
    "socketpair",
    "pipe2",
    "memfd_create",
    "sendmsg",
    "renameat2",
    "linkat",
    "clone",
];
/// How often a call is made to fail.
const TIMES: usize = 3;
/// What goes on in spite of it is ended then: it has said what there was to say.
const LONG_ENOUGH: Duration = Duration::from_secs(4);

/// Whether a line that says why something failed says what.
fn names_its_object(line: &str) -> bool {
    let line = line.to_lowercase();
    let Some((before, _)) = line.split_once(ERROR.1) else {
        return true;
    };
    let message = before.split_once(": ").map_or("", |(_, message)| message);
    message.split_whitespace().count() >= 3 && message.ends_with(": ")
}

#[test]
fn a_bare_errno_is_recognised() {
    for (line, named) in [
        ("cascade: Numerical argument out of domain", false),
        (
            "cascade[7]: cannot begin: Numerical argument out of domain",
            false,
        ),
        (
            "cascade: cannot read data: Numerical argument out of domain",
            true,
        ),
        ("listening on 127.0.0.1:80", true),
    ] {
        assert_eq!(names_its_object(line), named, "{line}");
    }
}

/// What was said when this call failed at this time, and whether it was made as often.
fn injected(scene: &Scene, call: &str, number: usize, words: &[&str]) -> (String, bool) {
    let trace = scene.path("trace");
    let inject = format!("inject={call}:error={}:when={number}", ERROR.0);
    let strace = scene
        .program("strace")
        .args(["-f", "-qq", "-e", &inject, "-o"]);
    let strace = strace.arg(&trace).arg(env!("CARGO_BIN_EXE_cascade"));
    let mut strace = strace.args(words).start();
    let ended = holds_within(LONG_ENOUGH, || strace.ended().is_some());
    let said = strace.stderr();
    if !ended {
        drop(strace);
        scene.kill_all();
    }
    let was_made = fs::read_to_string(&trace).is_ok_and(|text| text.contains("(INJECTED)"));
    (said, was_made)
}

/// Whether system calls can be made to fail here.
fn can_inject(scene: &Scene) -> bool {
    let there = Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .status();
    if there.is_err() {
        return false;
    }
    let strace = scene
        .program("strace")
        .args(["-e", "inject=getppid:error=EDOM", "-o"]);
    let strace = strace.arg(scene.path("trace")).args(["sh", "-c", "exit 7"]);
    strace.run().status.code() == Some(7)
}

/// Checks all lines of a command while each call fails in turn.
fn assert_named(prepare: impl Fn(&Scene), words: &[&str]) {
    let scene = Scene::new();
    if !can_inject(&scene) {
        return skip("strace cannot inject errors here");
    }
    let mut failed = 0;
    for call in CALLS {
        for number in 1..=TIMES {
            prepare(&scene);
            let (said, was_made) = injected(&scene, call, number, words);
            if !was_made {
                break;
            }
            for line in said.lines().filter(|line| line.starts_with("cascade")) {
                assert!(names_its_object(line), "{call} {number}: {line}\n{said}");
                failed += usize::from(line.to_lowercase().contains(ERROR.1));
            }
        }
    }
    assert!(failed > 0, "no failure was said");
}

fn sample() -> Sample {
    Sample::new("data", 5000, 1000)
}

fn with_files(scene: &Scene) {
    sample().write_data(&scene.path(""));
    sample().write_cascade(&scene.path(""));
    for made in ["got", "x.cascade"] {
        let _ = fs::remove_file(scene.path(made));
    }
}

#[test]
fn create_info_and_verify_name_what_failed() {
    assert_named(with_files, &["create", "-f", "-o", "x.cascade", "data"]);
    assert_named(with_files, &["verify", "data.cascade"]);
    assert_named(with_files, &["info", "data.cascade"]);
}

#[test]
fn get_names_what_failed() {
    let (scene, sample) = (Scene::new(), sample());
    sample.write_data(&scene.path(""));
    let cascade = sample.write_cascade(&scene.path(""));
    let tracker = scene.tracker();
    let peer = scene.cascade("peer").tracker(tracker.address());
    let peer = peer.args(["-l", "127.0.0.1:0"]).arg(cascade).serve();
    let (at, peer_at) = (tracker.address().to_string(), peer.address().to_string());
    let words = [
        "get",
        "-t",
        &at,
        "-p",
        &peer_at,
        "-o",
        "got",
        "--timeout",
        "1",
        "data.cascade",
    ];
    assert_named(with_files, &words);
    assert_named(with_files, &["list", "-t", &at, "data.cascade"]);
    peer.stop();
    tracker.stop();
}

#[test]
fn servers_name_what_failed_at_their_start() {
    // A configuration that is only checked, and addresses that are taken: each ends by itself.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let at = taken.local_addr().expect("an address").to_string();
    for words in [
        &[
            "tracker",
            "--check",
            "--state",
            "state",
            "-l",
            "127.0.0.1:0",
            "data.cascade",
        ][..],
        &["tracker", "--pidfile", "pid", "-l", &at, "data.cascade"],
        &["peer", "--check", "-l", "127.0.0.1:0", "data.cascade"],
        &["peer", "-l", &at, "data.cascade"],
    ] {
        assert_named(with_files, words);
    }
}
