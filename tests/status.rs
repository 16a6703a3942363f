//! How a server is: what `cascade status`, the page and the metrics tell is what happened.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::browser::{chromium, load};
use common::process::{Process, Server};
use common::sample::Sample;
use common::scene::Scene;
use common::subject::MODELS;
use common::{clients, eventually, procfs, skip, trackers};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// What `cascade status --json` prints about the server with this control socket.
#[track_caller]
fn status(scene: &Scene, socket: &str) -> Value {
    let asked = scene.cascade("status").args(["--json", socket]).run();
    let asked = asked.assert_code(0);
    assert_eq!(asked.stdout.lines().count(), 1, "{asked:#?}");
    serde_json::from_str(&asked.stdout).expect("JSON")
}

/// A tracker of this model with a control socket and a page, of this file.
fn tracker(scene: &Scene, model: &str, sample: &Sample) -> (Server, String) {
    let cascade = sample.write_cascade(&scene.path(""));
    let tracker = scene
        .cascade("tracker")
        .args(["-l", "127.0.0.1:0", "--model", model])
        .args(["--control", "control", "--http", "127.0.0.1:0"])
        .arg(cascade)
        .serve();
    let page = page_of(tracker.process());
    (tracker, page)
}

/// Where the page is.
fn page_of(process: &Process) -> String {
    let stdout = process.stdout();
    let line = stdout
        .lines()
        .find_map(|line| line.strip_prefix("status at "));
    line.expect("it says where").to_owned()
}

/// A request to a page, as it stands; the head of the response, and its body.
fn http(page: &str, request: &str) -> (String, String) {
    let address = page.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a socket takes options");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("text");
    let (head, body) = response.split_once("\r\n\r\n").expect("a response");
    (head.into(), body.into())
}

fn get(page: &str, path: &str) -> String {
    let (head, body) = http(
        page,
        &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    );
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    body
}

#[test]
fn what_a_tracker_tells_is_what_happened() {
    for model in MODELS {
        let (scene, sample) = (Scene::new(), Sample::new("data", 100_000, 1000));
        let (tracker, page) = tracker(&scene, model, &sample);
        for _ in 0..3 {
            assert_eq!(trackers::list(tracker.address(), &sample.hash()), []);
        }
        let refused = trackers::ask(tracker.address(), &[b'x'; trackers::REQUEST_LEN]);
        assert!(refused.is_ok_and(|(status, _)| status != 0), "{model}");
        let peer = "127.0.0.1:9".parse().expect("an address");
        let request = trackers::request(2, &sample.hash(), peer);
        let subscribed = trackers::ask(tracker.address(), &request);
        assert!(subscribed.is_ok_and(|(status, _)| status == 0), "{model}");
        let mut told = Value::Null;
        // A connection is over a moment after its client has seen its end.
        eventually("the connections are over", || {
            told = status(&scene, "control");
            told["connections"]["now"] == 0
        });
        assert_eq!(told["role"], "tracker");
        assert_eq!(told["format"], 1);
        assert_eq!(told["pid"], tracker.process().pid().as_raw());
        assert_eq!(told["listening"][0], tracker.address().to_string());
        let connections = &told["connections"];
        assert_eq!(connections["accepted"], 5, "{model}: {told}");
        assert_eq!(connections["ended"]["done"], 4, "{model}: {told}");
        assert_eq!(connections["ended"]["protocol_error"], 1, "{model}: {told}");
        assert!(connections["sent"].as_u64() > Some(20), "{model}: {told}");
        assert_eq!(told["peers"], 1);
        assert_eq!(told["capacity"], 65_536);
        let file = &told["files"][0];
        assert_eq!(
            (&file["hash"], &file["blocks"], &file["peers"]),
            (&sample.hex().into(), &100.into(), &1.into()),
            "{model}"
        );
        assert_eq!(file["registered"][0]["address"], "127.0.0.1:9");
        assert_eq!(file["name"], "data", "{model}");
        let in_words = scene.cascade("status").arg("control").run().assert_code(0);
        let named = format!("\ndata\n  {}\n", sample.hex());
        assert!(in_words.stdout.contains(&named), "{in_words:#?}");
        assert!(get(&page, "/").contains("<h3>data</h3>"), "{model}");
        assert!(
            get(&page, "/metrics").contains("{name=\"data\",hash="),
            "{model}"
        );
        // The same over HTTP.
        let over_http: Value = serde_json::from_str(&get(&page, "/status.json")).expect("JSON");
        assert_eq!(over_http["connections"], told["connections"], "{model}");
        assert_eq!(over_http["files"], told["files"], "{model}");
        assert_agrees_with_the_log(&scene, tracker.process());
        tracker.stop();
        assert!(!scene.path("control").exists(), "it is removed at the end");
        scene.assert_nothing_left();
    }
}

/// The status block that a signal has it log says the same as the report.
#[track_caller]
fn assert_agrees_with_the_log(scene: &Scene, server: &Process) {
    let report = scene.cascade("status").arg("control").run().assert_code(0);
    for line in report.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let report = words(&report.stdout);
    server.signal(Signal::SIGUSR1);
    let mut lines = Vec::new();
    eventually("it logs a status block", || {
        let log = server.stderr();
        lines = log
            .lines()
            .filter_map(|line| Some(line.split_once("]: status: ")?.1.to_owned()))
            .collect();
        lines.iter().any(|line| line.starts_with("peers: "))
    });
    let block = lines
        .iter()
        .filter(|line| !line.starts_with("children") && !line.starts_with("threads"));
    for line in block {
        let line = line.replacen(": ", " ", 1);
        assert!(report.contains(&line), "{line}\n{report}");
    }
}

#[test]
fn what_a_peer_tells_is_what_happened() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 100_000, 1000));
    let there = scene.directory("there");
    sample.write_data(&there);
    let seed = scene.cascade("peer").args(["-l", "127.0.0.1:0"]);
    let seed = seed.arg(sample.write_cascade(&there)).serve();
    let here = scene.directory("here");
    let peer = scene
        .cascade("peer")
        .args(["-l", "127.0.0.1:0", "--control", "control"])
        .peer(seed.address())
        .arg(sample.write_cascade(&here))
        .serve();
    let mut told = Value::Null;
    eventually("the file is complete", || {
        told = status(&scene, "control");
        told["files"][0]["state"] == "complete"
    });
    assert_eq!(told["role"], "peer");
    assert_eq!(told["received"], 100_000, "{told}");
    let file = &told["files"][0];
    assert_eq!(file["hash"], sample.hex());
    assert_eq!(
        (&file["blocks"], &file["present"], &file["verified"]),
        (&100.into(), &100.into(), &100_000.into())
    );
    assert!(
        file["file"]
            .as_str()
            .is_some_and(|path| path.ends_with("here/data"))
    );
    let (code, block) =
        clients::ask(peer.address(), &clients::request(&sample.hash(), 3)).expect("it serves");
    assert_eq!((code, &block[..]), (0, sample.block(3).expect("a block")));
    eventually("the connection is over", || {
        told = status(&scene, "control");
        told["connections"]["ended"]["done"] == 1
    });
    assert_eq!(told["connections"]["sent"], 1009, "{told}");
    assert_agrees_with_the_log(&scene, peer.process());
    peer.stop();
    assert!(!scene.path("control").exists());
    seed.stop();
    scene.assert_nothing_left();
}

#[cfg(feature = "faults")]
#[test]
fn a_file_that_is_checked_and_synced_is_being_finished() {
    for step in ["hasher=hang", "syncing=hang"] {
        let (scene, sample) = (Scene::new(), Sample::new("data", 100_000, 1000));
        let seed = common::peers::start(&sample, common::peers::has_all_and_knows_the_map);
        let peer = scene
            .cascade("peer")
            .args(["-l", "127.0.0.1:0", "--control", "control"])
            .peer(seed.address())
            .arg(sample.write_cascade(&scene.path("")))
            .env("CASCADE_FAULT", step)
            .serve();
        eventually("it is", || {
            status(&scene, "control")["files"][0]["state"] == "finishing"
        });
        drop(peer);
        scene.kill_all();
    }
}

#[test]
fn files_that_come_later_are_told_of_too() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let directory = scene.directory("watched");
    let peer = scene
        .cascade("peer")
        .args(["-l", "127.0.0.1:0", "--control", "control", "--watch-dir"])
        .args(["-d", "watched"])
        .serve();
    eventually("it tells that there are none", || {
        status(&scene, "control")["files"] == Value::Array(Vec::new())
    });
    sample.write_data(&directory);
    sample.write_cascade(&directory);
    peer.process().signal(Signal::SIGHUP);
    eventually("it tells of the new one", || {
        status(&scene, "control")["files"][0]["state"] == "complete"
    });
    peer.stop();
}

#[test]
fn a_link_whose_cascade_file_nobody_has_yet_is_told_of_too() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let there = scene.directory("there");
    scene.directory("here");
    sample.write_data(&there);
    sample.write_cascade(&there);
    let tracker = scene.tracker();
    let link = format!("cascade://{}/{}/data", tracker.address(), sample.hex());
    let peer = scene
        .cascade("peer")
        .args(["-l", "127.0.0.1:0", "--control", "control", "-d", "here"])
        .arg(&link)
        .start();
    // It is there a moment before somebody listens at it.
    eventually("the control socket answers", || {
        UnixStream::connect(scene.path("control")).is_ok()
    });
    let told = status(&scene, "control");
    let file = &told["files"][0];
    assert_eq!(file["hash"], sample.hex(), "{told}");
    assert_eq!(file["state"], "fetching", "{told}");
    let report = scene.cascade("status").arg("control").run().assert_code(0);
    assert!(
        report
            .stdout
            .contains("the cascade file is being searched for"),
        "{report:#?}"
    );
    let seed = scene
        .cascade("peer")
        .args(["-l", "127.0.0.1:0"])
        .tracker(tracker.address())
        .arg("there/data.cascade")
        .serve();
    eventually("it has it", || {
        status(&scene, "control")["files"][0]["state"] == "complete"
    });
    peer.signal(Signal::SIGTERM);
    peer.finish().assert_code(0);
    assert!(!scene.path("control").exists(), "it is removed at the end");
    for server in [seed, tracker] {
        server.stop();
    }
    scene.assert_nothing_left();
}

#[test]
fn a_tracker_that_reads_other_hashes_tells_of_them() {
    // More than there is room for beside the first: a registry is made anew.
    for count in [1, 500] {
        for model in ["process", "event"] {
            let scene = Scene::new();
            let write = |hashes: Vec<String>| {
                let text = format!("{{\"allowedhashes\": {hashes:?}}}");
                fs::write(scene.path("config.json"), text).expect("written");
            };
            write(vec!["ab".repeat(32)]);
            let tracker = scene
                .cascade("tracker")
                .args(["-l", "127.0.0.1:0", "--model", model])
                .args(["--control", "control", "-c", "config.json"])
                .serve();
            assert_eq!(status(&scene, "control")["tracked"], 1);
            write((0..count).map(|n| format!("{n:064x}")).collect());
            tracker.process().signal(Signal::SIGHUP);
            eventually("it tells of the new ones", || {
                let told = status(&scene, "control");
                let hashes = told["files"].as_array().expect("a list");
                told["tracked"] == count
                    && hashes.iter().all(|file| file["hash"] != "ab".repeat(32))
            });
            tracker.stop();
        }
    }
}

#[test]
fn only_its_owner_reaches_the_control_socket() {
    let scene = Scene::new();
    let sample = Sample::new("data", 10_000, 1000);
    let (tracker, _) = tracker(&scene, "process", &sample);
    let metadata = fs::metadata(scene.path("control")).expect("the socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(metadata.uid(), nix::unistd::geteuid().as_raw());
    tracker.stop();
}

#[test]
fn what_a_killed_server_left_is_replaced_and_that_of_a_live_one_is_an_error() {
    let scene = Scene::new();
    let start = || {
        scene
            .cascade("tracker")
            .args(["--open", "-l", "127.0.0.1:0", "--control", "control"])
    };
    let first = start().serve();
    let second = start().run().assert_code(1);
    assert_eq!(
        second.error(),
        "cascade: cannot listen on control: another process does"
    );
    assert_eq!(status(&scene, "control")["role"], "tracker");
    // What is left of it may or may not have had the time to remove the socket.
    first.kill();
    let third = start().serve();
    assert_eq!(
        status(&scene, "control")["pid"],
        third.process().pid().as_raw()
    );
    third.stop();
    fs::write(scene.path("control"), "precious").expect("a file");
    let fourth = start().run().assert_code(1);
    assert!(fourth.error().contains("no socket"), "{fourth:#?}");
    assert!(scene.path("control").exists());
}

#[test]
fn where_nobody_answers_it_is_said_why() {
    let scene = Scene::new();
    let ask = |socket: &str| {
        let asked = scene.cascade("status").args(["--timeout", "300ms", socket]);
        asked.run().assert_code(1).error().to_owned()
    };
    assert_eq!(
        ask("missing"),
        "cascade: cannot ask missing: there is no such file; does the tracker or the peer run, and with --control?"
    );
    fs::write(scene.path("file"), "").expect("a file");
    assert_eq!(ask("file"), "cascade: cannot ask file: it is no socket");
    let listener = UnixListener::bind(scene.path("silent")).expect("a socket");
    assert_eq!(
        ask("silent"),
        "cascade: cannot ask silent: there was no answer within 300ms"
    );
    drop(listener);
    assert_eq!(
        ask("silent"),
        "cascade: cannot ask silent: nobody listens there any more; does the tracker or the peer run, and with --control?"
    );
    let listener = UnixListener::bind(scene.path("other")).expect("a socket");
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"hello\n");
    });
    assert_eq!(
        ask("other"),
        "cascade: cannot ask other: it answered something that is no status"
    );
    other.join().expect("no panic");
    let usage = scene.cascade("status").run().assert_code(2);
    assert!(usage.stderr.contains("SOCKET"), "{usage:#?}");
}

#[test]
fn http_is_answered_as_http_has_it() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let (tracker, page) = tracker(&scene, "process", &sample);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET /metrics?x HTTP/1.0\r\n\r\n", 200),
        ("HEAD /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET /no HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
            405,
        ),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", 505),
    ] {
        let (head, body) = http(&page, request);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {head}"
        );
        assert!(head.contains("\r\nConnection: close"), "{head}");
        assert_eq!(body.is_empty(), request.starts_with("HEAD"), "{request}");
    }
    let long = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "y".repeat(9000)
    );
    assert!(http(&page, &long).0.starts_with("HTTP/1.1 431 "));
    let refused = scene
        .cascade("tracker")
        .args(["--open", "--http", "9100"])
        .run();
    let refused = refused.assert_code(2);
    assert!(refused.stderr.contains("127.0.0.1:9100"), "{refused:#?}");
    tracker.stop();
}

/// The process that starts those who tell how a tracker is: of those that have a keeper, the one with children.
fn reporter(tracker: Pid) -> Option<Pid> {
    let kept = procfs::children(tracker).into_iter();
    let mut kept = kept.flat_map(procfs::children);
    kept.find(|kept| !procfs::children(*kept).is_empty())
}

/// Those who tell how a tracker is, and the one who asks its peers.
fn tellers(tracker: Pid) -> Vec<Pid> {
    reporter(tracker).map(procfs::children).unwrap_or_default()
}

#[test]
fn who_tells_may_be_killed_and_is_started_again_and_nobody_else_feels_it() {
    for model in ["process", "event"] {
        let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
        let (tracker, page) = tracker(&scene, model, &sample);
        let main = tracker.process().pid();
        eventually("there are three", || tellers(main).len() == 3);
        let before = tellers(main);
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            tellers(main)
                .iter()
                .for_each(|door| _ = kill(*door, signal));
        }
        assert_eq!(trackers::list(tracker.address(), &sample.hash()), []);
        eventually("all were started again", || {
            let now = tellers(main);
            now.len() == 3 && now.iter().all(|door| !before.contains(door))
        });
        assert_eq!(status(&scene, "control")["role"], "tracker", "{model}");
        get(&page, "/metrics");
        assert_eq!(tracker.process().pid(), main);
        let stopped = tracker.stop();
        let said = "the process that tells the status at ";
        assert_eq!(stopped.stderr.matches(said).count(), 2, "{stopped:#?}");
        scene.assert_nothing_left();
    }
}

#[test]
fn who_starts_those_who_tell_may_be_killed_too_and_its_successor_knows_what_it_knew() {
    let scene = Scene::new();
    let write = |count: u32| {
        let hashes: Vec<String> = (0..count).map(|n| format!("{n:064x}")).collect();
        let text = format!("{{\"allowedhashes\": {hashes:?}}}");
        fs::write(scene.path("config.json"), text).expect("written");
    };
    write(1);
    let tracker = scene
        .cascade("tracker")
        .args(["-l", "127.0.0.1:0", "-c", "config.json"])
        .args(["--control", "control", "--http", "127.0.0.1:0"])
        .serve();
    let (main, page) = (tracker.process().pid(), page_of(tracker.process()));
    let is_told = |count: u32| status(&scene, "control")["tracked"] == count;
    // A registry that takes the place of another, as there is no room for so many beside what there was.
    for count in [1, 500] {
        write(count);
        tracker.process().signal(Signal::SIGHUP);
        eventually("it tells of them", || is_told(count));
        let before = [reporter(main).into_iter().collect(), tellers(main)].concat();
        assert_eq!(before.len(), 4);
        kill(before[0], Signal::SIGKILL).expect("it is ours");
        eventually("all were started again", || {
            let now = tellers(main);
            now.len() == 3 && now.iter().all(|teller| !before.contains(teller))
        });
        assert!(is_told(count), "{count}");
        assert!(get(&page, "/metrics").contains("cascade_build_info"));
    }
    let stopped = tracker.stop();
    let said = "the process that starts those who tell the status ended: signal 9 (SIGKILL); it is started again";
    assert_eq!(stopped.stderr.matches(said).count(), 2, "{stopped:#?}");
    assert!(!scene.path("control").exists(), "it is removed at the end");
    scene.assert_nothing_left();
}

#[test]
fn a_tracker_that_has_no_room_for_clients_still_tells() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let cascade = sample.write_cascade(&scene.path(""));
    let tracker = scene
        .cascade("tracker")
        .args(["-l", "127.0.0.1:0", "--max-connections", "3"])
        .args(["--control", "control", "--http", "127.0.0.1:0"])
        .arg(cascade)
        .serve();
    let page = page_of(tracker.process());
    let held: Vec<TcpStream> = (0..9)
        .map(|_| TcpStream::connect(tracker.address()).expect("there is a backlog"))
        .collect();
    eventually("it has as many as it may", || {
        status(&scene, "control")["connections"]["now"] == 3
    });
    // Who holds all of HTTP is not in the operator's way.
    let address: SocketAddr = page
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .parse()
        .expect("an address");
    let strangers: Vec<TcpStream> = (0..80)
        .map(|_| TcpStream::connect(address).expect("there is a backlog"))
        .collect();
    assert_eq!(status(&scene, "control")["connections"]["now"], 3);
    drop((held, strangers));
    tracker.stop();
}

#[test]
fn a_tracker_with_room_for_very_many_tells_too() {
    let scene = Scene::new();
    let tracker = scene
        .cascade("tracker")
        .args(["--open", "--max-peers", "16777216", "-l", "127.0.0.1:0"])
        .args(["--control", "control"])
        .serve();
    assert_eq!(status(&scene, "control")["capacity"], 16_777_216);
    let stopped = tracker.stop();
    assert!(!stopped.stderr.contains("again"), "{stopped:#?}");
}

#[test]
fn the_metrics_are_what_prometheus_reads() {
    let scene = Scene::new();
    let parser = "from prometheus_client.parser import text_string_to_metric_families as f
import json, sys
print(json.dumps([[s.name, s.labels, s.value, m.type] for m in f(sys.stdin.read()) for s in m.samples]))";
    let there = scene
        .program("python3")
        .args(["-c", "import prometheus_client"])
        .run();
    if !there.status.success() {
        skip("there is no prometheus_client for Python here");
        return;
    }
    let sample = Sample::new("data", 10_000, 1000);
    let (tracker, page) = tracker(&scene, "process", &sample);
    assert_eq!(trackers::list(tracker.address(), &sample.hash()), []);
    eventually("the connection is over", || {
        status(&scene, "control")["connections"]["ended"]["done"] == 1
    });
    let text = get(&page, "/metrics");
    let mut python = std::process::Command::new("python3")
        .args(["-c", parser])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut stdin = python.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = python.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{text}");
    let samples: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let samples = samples.as_array().expect("a list");
    let value = |name: &str, label: &str, text: &str| {
        let is_it =
            |sample: &&Value| sample[0] == name && (label.is_empty() || sample[1][label] == text);
        samples.iter().find(is_it)?[2].as_f64()
    };
    assert_eq!(
        value("cascade_connections_ended_total", "outcome", "done"),
        Some(1.0),
        "{text}"
    );
    assert_eq!(value("cascade_tracker_peers", "", ""), Some(0.0));
    assert_eq!(
        value("cascade_tracker_file_peers", "hash", &sample.hex()),
        Some(0.0)
    );
    for sample in samples {
        let name = sample[0].as_str().expect("a name");
        assert_eq!(name.ends_with("_total"), sample[3] == "counter", "{name}");
    }
    tracker.stop();
}

#[test]
fn the_page_is_shown_by_a_browser_without_an_error() {
    let Some(chromium) = chromium() else {
        skip("there is no Chromium here");
        return;
    };
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let (tracker, page) = tracker(&scene, "process", &sample);
    let peer = "127.0.0.1:9".parse().expect("an address");
    trackers::ask(
        tracker.address(),
        &trackers::request(2, &sample.hash(), peer),
    )
    .expect("an answer");
    let (dom, log) = load(&scene, chromium, &page);
    for part in ["Cascade tracker", &sample.hex(), "127.0.0.1:9", "</html>"] {
        assert!(dom.contains(part), "{part}\n{dom}\n{log}");
    }
    assert!(!log.contains("CONSOLE"), "{log}");
    tracker.stop();
}

#[test]
fn what_is_asked_of_the_socket_is_http_for_any_program() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let (tracker, _) = tracker(&scene, "process", &sample);
    let text = ask_unix(&scene.path("control"), "/metrics");
    assert!(
        text.contains("cascade_build_info{role=\"tracker\""),
        "{text}"
    );
    tracker.stop();
}

fn ask_unix(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    text
}
