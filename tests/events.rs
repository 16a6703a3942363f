//! What is told of a download: events for programs (cascade-get(1), Events), silence, and the command of `--exec`.

mod common;

use std::fs;

use common::eventually;
use common::peers::{self, keeps_the_connection_open, start};
use common::process::Finished;
use common::sample::Sample;
use common::scene::Scene;
use common::trackers::nobody_there;
use serde_json::{Value, json};

fn sample() -> Sample {
    Sample::new("disk.bin", 1_000_000, 65_536)
}

/// The events, each of which must be an object on a line of its own.
#[track_caller]
fn events(finished: &Finished) -> Vec<Value> {
    let lines = finished.stdout.lines();
    let events: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    assert!(events.iter().all(Value::is_object), "{events:?}");
    events
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    let is_it = |event: &&Value| event["event"] == name;
    events.iter().filter(is_it).collect()
}

#[test]
fn a_download_is_told_as_documented() {
    let (scene, sample) = (Scene::new(), sample());
    let peer = start(&sample, keeps_the_connection_open);
    let cascade = sample.write_cascade(&scene.path("."));
    let get = scene.cascade("get").arg("--json").peer(peer.address());
    let done = get.arg(&cascade).run().assert_code(0);
    let events = events(&done);
    let file = events[0]["file"].clone();
    assert!(
        file.as_str().is_some_and(|file| file.ends_with("disk.bin")),
        "{events:?}"
    );
    assert_eq!(
        events[0],
        json!({"event": "started", "file": file, "hash": sample.hex(), "length": 1_000_000,
            "block_size": 65_536, "blocks": 16}),
    );
    let complete = events.last().expect("an event");
    let seconds = complete["seconds"].as_f64().expect("a number");
    assert!((0.0..60.0).contains(&seconds), "{seconds}");
    assert_eq!(
        *complete,
        json!({"event": "complete", "file": file, "hash": sample.hex(), "received": 1_000_000,
            "seconds": complete["seconds"], "peers": 1}),
    );
    // Neither progress nor summary for people.
    assert_eq!(done.stderr, "");
}

#[test]
fn peers_and_progress_are_told_while_a_download_lasts() {
    let (scene, sample) = (Scene::new(), sample());
    let stalls = peers::start_with(
        common::standin::Accepts::Together,
        &sample,
        peers::stalls_after(5),
    );
    let cascade = sample.write_cascade(&scene.path("."));
    let get = scene.cascade("get").args(["--json", "--timeout", "4"]);
    let done = get
        .peer(stalls.address())
        .arg(&cascade)
        .run()
        .assert_code(3);
    let events = events(&done);
    let peers = named(&events, "peers");
    assert_eq!(peers[0]["peers"], 1);
    assert_eq!(peers[0].as_object().map(serde_json::Map::len), Some(4));
    let progress = named(&events, "progress");
    let last = progress.last().expect("there was progress");
    assert_eq!(
        (&last["bytes"], &last["length"]),
        (&json!(5 * 65_536), &json!(1_000_000))
    );
    assert_eq!(last.as_object().map(serde_json::Map::len), Some(5));
    let given_up = events.last().expect("an event");
    assert_eq!(
        (&given_up["event"], &given_up["status"]),
        (&json!("given_up"), &json!(3))
    );
}

/// A download that stops for ever at this place, all of whose blocks are there.
#[cfg(feature = "faults")]
fn stuck_at(scene: &Scene, place: &str, more: &[&str]) -> common::process::Process {
    let sample = sample();
    let peer = start(&sample, keeps_the_connection_open);
    let cascade = sample.write_cascade(&scene.path("."));
    let get = scene.cascade("get").args(more).peer(peer.address());
    let get = get.arg(cascade).env("CASCADE_FAULT", place).start();
    eventually("all blocks are there", || {
        fs::read(sample.part(&scene.path("disk.bin"))).is_ok_and(|bytes| bytes == sample.bytes)
    });
    get
}

#[cfg(feature = "faults")]
#[test]
fn a_program_is_told_what_takes_long_when_all_blocks_are_there() {
    for (place, step) in [("hasher=hang", "checking"), ("syncing=hang", "syncing")] {
        let scene = Scene::new();
        let get = stuck_at(&scene, place, &["--json"]);
        eventually("it is told", || get.stdout().contains("finishing"));
        drop(get);
        scene.kill_all();
        let told = fs::read_to_string(scene.path(".output/0.out")).expect("its output");
        let last = told.lines().rfind(|line| line.contains("finishing"));
        let last: Value = serde_json::from_str(last.expect("a line")).expect("an object");
        let expected = json!({"event": "finishing", "file": last["file"], "hash": sample().hex(),
            "step": step});
        assert_eq!(last, expected);
        assert_eq!(told.matches("finishing").count(), 1, "{told}");
    }
}

#[cfg(feature = "faults")]
#[test]
fn a_person_is_told_what_takes_long_when_all_blocks_are_there() {
    for (place, line) in [
        (
            "hasher=hang",
            "disk.bin: all blocks received; verifying the whole file: 0 %\n",
        ),
        (
            "syncing=hang",
            "disk.bin: all blocks received; syncing to disk\n",
        ),
    ] {
        let scene = Scene::new();
        let get = stuck_at(&scene, place, &[]);
        eventually(line, || get.stderr().contains(line));
        drop(get);
        scene.kill_all();
    }
}

#[test]
fn failures_are_told_with_peer_block_and_reason() {
    let (scene, sample) = (Scene::new(), sample());
    let mut forged = sample.clone();
    forged.bytes.iter_mut().for_each(|byte| *byte ^= 1);
    let liar = peers::start_with(
        common::standin::Accepts::Together,
        &sample,
        move |conn, sample| {
            while let Some(asked) = conn.request(sample)? {
                conn.send(&peers::block(&forged, &asked))?;
            }
            Ok(())
        },
    );
    let nobody = nobody_there();
    let cascade = sample.write_cascade(&scene.path("."));
    let get = scene
        .cascade("get")
        .args(["--json", "-w", "1"])
        .peer(liar.address());
    let done = get.peer(nobody).arg(&cascade).run().assert_code(3);
    let events = events(&done);
    let failures = named(&events, "failure");
    let about = |peer: std::net::SocketAddr| {
        let peer = peer.to_string();
        let found = failures
            .iter()
            .find(|failure| failure["peer"] == peer.as_str());
        found.copied().unwrap_or_else(|| panic!("{events:?}"))
    };
    let lie = about(liar.address());
    let block = lie["block"].as_u64().expect("a block");
    assert!(block < 16);
    assert_eq!(lie["kind"], "wrong_block");
    assert_eq!(lie["reason"], format!("it sent a corrupt block ({block})"));
    assert_eq!(lie["hash"], sample.hex());
    let unreachable = about(nobody);
    assert_eq!(
        (&unreachable["kind"], &unreachable["block"]),
        (&json!("unreachable"), &Value::Null)
    );
}

#[test]
fn a_status_that_makes_no_sense_is_told_with_the_block_that_was_asked_for() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 1000, 1000));
    // One does not have the extension, and answers what it is asked all the same.
    for status in [4, 9] {
        let peer = peers::start_with(
            common::standin::Accepts::Together,
            &sample,
            move |conn, sample| {
                while conn.request(sample)?.is_some() {
                    conn.send(&peers::response(status, b"so what\n"))?;
                }
                Ok(())
            },
        );
        let cascade = sample.write_cascade(&scene.path("."));
        let get = scene.cascade("get").arg("--json").peer(peer.address());
        let done = get.arg(&cascade).run().assert_code(3);
        let events = events(&done);
        let failure = named(&events, "failure")[0];
        assert_eq!(
            (&failure["kind"], &failure["block"]),
            (&json!("wrong_status"), &json!(0)),
            "{events:?}"
        );
        let reason = format!("it sent status {status}, which makes no sense");
        assert_eq!(failure["reason"], reason);
    }
}

#[test]
fn a_peer_tells_where_it_listens() {
    let (scene, sample) = (Scene::new(), sample());
    sample.write_data(&scene.path("."));
    let cascade = sample.write_cascade(&scene.path("."));
    let peer = scene
        .cascade("peer")
        .args(["--json", "-l", "127.0.0.1:0"])
        .arg(cascade)
        .start();
    eventually("it listens", || peer.stdout().contains("\"listening\""));
    peer.signal(nix::sys::signal::Signal::SIGTERM);
    let done = peer.finish().assert_code(0);
    let events = events(&done);
    let address = named(&events, "listening")[0]["address"].clone();
    assert!(
        address
            .as_str()
            .is_some_and(|text| text.starts_with("127.0.0.1:")),
        "{events:?}"
    );
    assert_eq!(named(&events, "complete")[0]["received"], 0);
}

#[test]
fn quiet_says_nothing_of_what_goes_well() {
    let (scene, sample) = (Scene::new(), sample());
    let peer = start(&sample, keeps_the_connection_open);
    let cascade = sample.write_cascade(&scene.path("."));
    let get = || scene.cascade("get").arg("-q").arg(&cascade);
    let done = get().peer(peer.address()).run().assert_code(0);
    assert_eq!((&*done.stdout, &*done.stderr), ("", ""));
    fs::remove_file(scene.path(&sample.name)).expect("it is there");
    let done = get().peer(nobody_there()).run().assert_code(3);
    assert_eq!(done.stderr.lines().count(), 1, "{done:?}");
}

/// Downloads a file of this name, and runs the command.
fn get_and_run(scene: &Scene, sample: &Sample, more: &[&str]) -> Finished {
    let peer = start(sample, keeps_the_connection_open);
    let cascade = sample.write_cascade(&scene.path("."));
    let name = cascade.file_name().expect("it has a name").to_owned();
    scene
        .cascade("get")
        .args(more)
        .peer(peer.address())
        .arg("--")
        .arg(name)
        .run()
}

#[test]
fn the_command_is_told_path_and_hash_and_no_name_can_be_a_command() {
    let scene = Scene::new();
    let name = "-n $(touch pwned) `touch pwned`; touch pwned #'\"\n.bin";
    let sample = Sample::new(name, 10_000, 4096);
    let command = "printf '%s|%s' \"$CASCADE_FILE\" \"$CASCADE_HASH\" > told; cmp -s \"$CASCADE_FILE\" ./\"$(basename \"$CASCADE_FILE\")\"";
    get_and_run(&scene, &sample, &["--exec", command]).assert_code(0);
    let told = fs::read_to_string(scene.path("told")).expect("the command ran");
    let path = scene.path(name).canonicalize().expect("it is there");
    let (file, hash) = told.split_once('|').expect("two words");
    assert_eq!(fs::canonicalize(file).expect("it is there"), path);
    assert!(file.starts_with('/'), "{file}");
    assert_eq!(hash, sample.hex());
    assert!(!scene.path("pwned").exists());
}

#[test]
fn a_command_that_fails_is_an_error_and_the_data_are_there() {
    let (scene, sample) = (Scene::new(), sample());
    let done = get_and_run(&scene, &sample, &["--exec", "exit 7"]).assert_code(1);
    assert!(done.error().contains("exit status 7"), "{done:?}");
    assert_eq!(
        done.results().len(),
        1,
        "it is complete all the same: {done:?}"
    );
    sample.assert_complete(&scene.path(&sample.name));
    let done = get_and_run(&scene, &sample, &["--exec", "kill -9 $$"]).assert_code(1);
    assert!(done.error().contains("signal 9"), "{done:?}");
}

#[test]
fn the_command_finds_signals_and_descriptors_as_any_program_does() {
    let (scene, sample) = (Scene::new(), sample());
    let command = "cat /proc/self/status > status; ls /proc/$$/fd > descriptors; true";
    get_and_run(&scene, &sample, &["--exec", command]).assert_code(0);
    let status = fs::read_to_string(scene.path("status")).expect("the command ran");
    for field in ["SigBlk:", "SigIgn:", "SigCgt:"] {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let set = u64::from_str_radix(line.expect("a field").trim(), 16).expect("hexadecimal");
        // Those beyond are the C library's, and what started the tests may ignore them.
        assert_eq!(set & 0x7fff_ffff, 0, "{field} {set:x}");
    }
    let descriptors = fs::read_to_string(scene.path("descriptors")).expect("the command ran");
    // What this process was given by its parent goes to all that it starts.
    let list = ["-c", "ls /proc/$$/fd > plain; true"];
    scene.program("sh").args(list).run().assert_code(0);
    let plain = fs::read_to_string(scene.path("plain")).expect("the shell ran");
    assert_eq!(descriptors, plain);
}

#[test]
fn a_command_beside_events_writes_to_standard_error() {
    let (scene, sample) = (Scene::new(), sample());
    let done = get_and_run(&scene, &sample, &["--json", "--exec", "echo said"]).assert_code(0);
    let events = events(&done);
    assert_eq!(done.stderr, "said\n");
    let executed = events.last().expect("an event");
    assert_eq!(executed["event"], "executed");
    assert_eq!(
        (&executed["status"], &executed["hash"]),
        (&json!(0), &json!(sample.hex()))
    );
    let done = get_and_run(&scene, &sample, &["--exec", "echo said"]).assert_code(0);
    assert!(done.stdout.ends_with("said\n"), "{done:?}");
}

#[test]
fn a_peer_runs_the_command_for_what_it_downloaded_and_goes_on() {
    let (scene, sample) = (Scene::new(), sample());
    let seed = start(&sample, keeps_the_connection_open);
    let other = Sample::new("there.bin", 10_000, 4096);
    other.write_data(&scene.path("."));
    let cascades = [&sample, &other].map(|sample| sample.write_cascade(&scene.path(".")));
    let command = "basename \"$CASCADE_FILE\" >> told; exit 3";
    let peer = scene
        .cascade("peer")
        .args(["-l", "127.0.0.1:0", "--exec", command]);
    let peer = peer.peer(seed.address()).args(cascades).serve();
    eventually("the command ended", || {
        peer.process().stderr().contains("exit status 3")
    });
    peer.stop();
    assert_eq!(
        fs::read_to_string(scene.path("told")).expect("it ran"),
        "disk.bin\n"
    );
}
