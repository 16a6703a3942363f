//! Whatever is wrong with the input: one line `cascade: …`, the right exit status, no panic, nothing under a final
//! name that does not belong there, nothing of the user's lost.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::peers;
use common::process::Finished;
use common::sample::Sample;
use common::scene::{Invocation, Scene};
use common::standin::StandIn;
use common::trackers;

fn sample() -> Sample {
    Sample::new("data", 40_000, 1024)
}

/// The names and contents of the files in the scene, to show that nothing was added, lost or changed.
fn contents(scene: &Scene) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(scene.path(""))
        .expect("the scene has a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| !path.ends_with(".output"))
        .map(|path| {
            let bytes = fs::read(&path).unwrap_or_default();
            (path, bytes)
        })
        .collect();
    found.sort();
    found
}

/// Runs a command that must fail with this status and one line, and must leave everything as it was.
#[track_caller]
fn fails(scene: &Scene, command: Invocation<'_>, code: i32) -> Finished {
    let before = contents(scene);
    let done = command
        .run()
        .assert_code(code)
        .assert_within(Duration::from_secs(30));
    assert!(!done.error().trim_end().ends_with(':'), "{done:#?}");
    assert!(done.results().is_empty(), "{done:#?}");
    assert!(contents(scene) == before, "files changed: {done:#?}");
    done
}

/// Every way in which a cascade file can be wrong.
fn wrong_cascade_files() -> Vec<(&'static str, Vec<u8>)> {
    let right = Sample::new("data", 1000, 64).cascade;
    let with = |at: usize, bytes: &[u8]| {
        let mut file = right.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    vec![
        ("empty", Vec::new()),
        ("a byte", b"C".to_vec()),
        ("a header that is cut", right[..63].to_vec()),
        ("a hash that is cut", right[..right.len() - 1].to_vec()),
        ("a hash too few", right[..right.len() - 32].to_vec()),
        ("a byte too many", [&right[..], &[0]].concat()),
        ("a hash too many", [&right[..], &[0; 32]].concat()),
        ("another magic", with(0, b"CASCADE2")),
        ("block size 0", with(24, &[0; 8])),
        ("a length near 2^64", with(16, &[0xff; 8])),
        ("length and block size near 2^64", with(16, &[0xff; 16])),
        ("blocks of one byte", with(24, &1u64.to_be_bytes())),
        ("no data, but hashes", with(16, &[0; 8])),
        ("text", b"this is no cascade file\n".repeat(10)),
    ]
}

#[test]
fn a_wrong_cascade_file_is_an_error_of_every_command_that_reads_it() {
    let nobody = trackers::nobody_there();
    for (what, bytes) in wrong_cascade_files() {
        let scene = Scene::new();
        let cascade = scene.path("data.cascade");
        fs::write(&cascade, bytes).expect("a file");
        let commands = [
            scene.cascade("get").peer(nobody).arg(&cascade),
            scene
                .cascade("peer")
                .args(["-l", "127.0.0.1:0"])
                .arg(&cascade),
            scene.cascade("list").tracker(nobody).arg(&cascade),
            scene
                .cascade("tracker")
                .args(["-l", "127.0.0.1:0"])
                .arg(&cascade),
            scene.cascade("info").arg(&cascade),
            scene.cascade("verify").arg(&cascade),
        ];
        for command in commands {
            let done = fails(&scene, command, 1);
            assert!(done.error().contains("data.cascade"), "{what}: {done:#?}");
        }
    }
}

#[test]
fn a_cascade_file_that_is_not_there_is_an_error_of_every_command_that_reads_it() {
    let (scene, nobody) = (Scene::new(), trackers::nobody_there());
    fs::create_dir(scene.path("directory.cascade")).expect("a directory");
    for name in ["missing.cascade", "directory.cascade"] {
        let commands = [
            scene.cascade("get").peer(nobody).arg(name),
            scene.cascade("peer").args(["-l", "127.0.0.1:0"]).arg(name),
            scene.cascade("list").tracker(nobody).arg(name),
            scene
                .cascade("tracker")
                .args(["-l", "127.0.0.1:0"])
                .arg(name),
        ];
        for command in commands {
            let done = fails(&scene, command, 1);
            assert!(done.error().contains(name), "{done:#?}");
        }
    }
}

#[test]
fn a_cascade_file_that_may_not_be_read_is_an_error() {
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    fs::set_permissions(&cascade, fs::Permissions::from_mode(0o000)).expect("our own file");
    if fs::read(&cascade).is_ok() {
        eprintln!("skipped: root may read everything");
        return;
    }
    let nobody = trackers::nobody_there();
    fails(&scene, scene.cascade("get").peer(nobody).arg(&cascade), 1);
    fails(&scene, scene.cascade("peer").arg(&cascade), 1);
}

#[test]
fn a_wrong_cascade_file_does_not_keep_the_right_ones_from_being_fetched() {
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    fs::write(scene.path("wrong.cascade"), "wrong").expect("a file");
    let peer = peers::start(&sample, peers::keeps_the_connection_open);
    let done = scene
        .cascade("get")
        .peer(peer.address())
        .args([scene.path("wrong.cascade"), cascade])
        .run()
        .assert_code(1);
    done.error();
    assert_eq!(done.results(), [sample.line(&scene.path("data"))]);
    sample.assert_complete(&scene.path("data"));
}

#[test]
fn with_several_files_the_exit_status_is_the_highest() {
    let (scene, sample) = (Scene::new(), sample());
    let other = Sample::new("other", 30_000, 1024);
    let cascades = [&other, &sample].map(|sample| sample.write_cascade(&scene.path("")));
    fs::write(scene.path("wrong.cascade"), "wrong").expect("a file");
    // It knows one of the two files.
    let peer = StandIn::start(common::standin::Accepts::Together, {
        let sample = sample.clone();
        move |conn| {
            while let Some(bytes) = conn.receive(peers::REQUEST_LEN)? {
                if bytes[32..] != sample.hash() {
                    return conn.send(&peers::response(1, b"unknown hash\n"));
                }
                let asked = conn.check(bytes, &sample);
                conn.send(&peers::block(&sample, &asked))?;
            }
            Ok(())
        }
    });
    let done = scene
        .cascade("get")
        .args(["--timeout", "2"])
        .peer(peer.address())
        .arg(scene.path("wrong.cascade"))
        .args(cascades)
        .run()
        .assert_code(3);
    assert_eq!(done.results(), [sample.line(&scene.path("data"))]);
    sample.assert_complete(&scene.path("data"));
    assert!(!scene.path("other").exists());
}

#[test]
fn a_command_line_without_sense_is_a_usage_error() {
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    let cascade = cascade.to_str().expect("a path in UTF-8");
    let lines: &[&[&str]] = &[
        &["get", cascade],
        &["get", "-p", "127.0.0.1:9000"],
        &["get", "-p", "127.0.0.1:9000", "-o", "x", cascade, cascade],
        &["get", "-p", "127.0.0.1:9000", "-o", "x", "-d", "y", cascade],
        &[
            "get",
            "-p",
            "127.0.0.1:9000",
            "--no-serve",
            "-l",
            "0",
            cascade,
        ],
        &[
            "get",
            "-p",
            "127.0.0.1:9000",
            "--no-serve",
            "--seed-for",
            "1",
            cascade,
        ],
        &["get", "-p", "127.0.0.1:9000", "-w", "0", cascade],
        &["get", "-p", "127.0.0.1:9000", "--timeout", "soon", cascade],
        &["get", "-p", "127.0.0.1:65536", cascade],
        &["get", "-p", "127.0.0.1", cascade],
        &["get", "-t", "127.0.0.1:65536", cascade],
        &["get", "-t", "127.0.0.1:-1", cascade],
        &["get", "-p", "127.0.0.1:9000", "-l", "65536", cascade],
        &["peer", "-l", "65536", cascade],
        &["peer", "-t", "127.0.0.1:99999", cascade],
        &["peer", "--advertise", "192.0.2.1:65536", cascade],
        &["peer"],
        &["list", cascade],
        &["list", "-t", "127.0.0.1:65536", cascade],
        &["list", "-t", "127.0.0.1:8888"],
        &["tracker", "-l", "127.0.0.1:65536", "--open"],
        &["tracker", "--ttl", "-1", "--open"],
        &["tracker", "--max-peers", "0", "--open"],
        &["fetch", cascade],
        &["get", "--nonsense", cascade],
    ];
    for line in lines {
        let program = scene.program(env!("CARGO_BIN_EXE_cascade"));
        let done = fails(&scene, program.args(*line), 2);
        assert!(done.stderr.lines().count() == 1, "{line:?}: {done:#?}");
    }
}

#[test]
fn a_name_that_cannot_be_resolved_ends_the_run() {
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    // Not resolvable without asking anybody: a label has at most 63 characters, and there is no such service.
    let long = format!("{}.invalid:9000", "a".repeat(64));
    for name in [
        "no-such-host.invalid:9000",
        &long,
        "127.0.0.1:no-such-service",
    ] {
        for command in [
            scene.cascade("get").args(["-p", name]),
            scene.cascade("get").args(["-t", name]),
            scene.cascade("list").args(["-t", name]),
        ] {
            let done = fails(&scene, command.arg(&cascade), 1);
            let host = name.split(':').next().unwrap_or(name);
            assert!(done.error().contains(host), "{done:#?}");
        }
    }
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it has an address").to_string();
    for command in [
        scene.cascade("tracker").arg("--open"),
        scene.cascade("peer").arg(&cascade),
        scene
            .cascade("get")
            .tracker(trackers::nobody_there())
            .arg(&cascade),
    ] {
        let done = fails(&scene, command.args(["-l", &address]), 1);
        assert!(done.error().contains(&address), "{done:#?}");
    }
}

/// `get` and `peer` where the data have no place; nobody must be asked for a block.
#[track_caller]
fn data_have_no_place(scene: &Scene, sample: &Sample, options: &[&Path]) {
    let cascade = scene.path("data.cascade");
    let peer = peers::start(sample, peers::keeps_the_connection_open);
    for command in ["get", "peer"] {
        let mut line = scene.cascade(command).peer(peer.address());
        if command == "peer" {
            if options.first() == Some(&Path::new("-o")) {
                continue;
            }
            line = line.args(["-l", "127.0.0.1:0"]);
        }
        fails(scene, line.args(options).arg(&cascade), 1);
    }
    assert!(
        peer.asked().is_empty(),
        "nobody is asked for what has no place"
    );
}

#[test]
fn a_directory_in_the_place_of_the_data_is_an_error() {
    let (scene, sample) = (Scene::new(), sample());
    sample.write_cascade(&scene.path(""));
    scene.directory("data");
    data_have_no_place(&scene, &sample, &[]);
}

#[test]
fn a_directory_in_the_place_of_the_part_file_is_an_error() {
    let (scene, sample) = (Scene::new(), sample());
    sample.write_cascade(&scene.path(""));
    fs::create_dir(sample.part(&scene.path("data"))).expect("a directory");
    data_have_no_place(&scene, &sample, &[]);
}

#[test]
fn a_directory_for_the_data_that_is_not_there_is_an_error() {
    let (scene, sample) = (Scene::new(), sample());
    sample.write_cascade(&scene.path(""));
    data_have_no_place(&scene, &sample, &[Path::new("-d"), &scene.path("missing")]);
    let output = scene.path("missing/data");
    data_have_no_place(&scene, &sample, &[Path::new("-o"), &output]);
}

#[test]
fn a_data_file_that_may_not_be_written_is_an_error() {
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    let closed = scene.directory("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).expect("our own directory");
    if fs::write(closed.join("probe"), "").is_ok() {
        eprintln!("skipped: root may write everywhere");
        return;
    }
    let peer = peers::start(&sample, peers::keeps_the_connection_open);
    let get = scene.cascade("get").peer(peer.address()).arg("-d");
    fails(&scene, get.args([&closed, &cascade]), 1);
}

#[test]
fn a_full_disk_is_seen_before_the_first_request_and_leaves_nothing() {
    let scene = Scene::new();
    let sample = Sample::new("data", 4 << 20, 64 << 10);
    let cascade = sample.write_cascade(&scene.path(""));
    let disk = scene.directory("disk");
    let peer = peers::start(&sample, peers::keeps_the_connection_open);
    // A disk of 1 MiB, in a mount namespace of its own: it goes when the shell does, whatever happens.
    let script = "mount -t tmpfs -o size=1m none \"$1\" || exit 99
        \"$2\" get -p \"$3\" -d \"$1\" \"$4\"; status=$?
        ls -A \"$1\"; exit $status";
    let done = scene
        .program("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(&disk)
        .arg(env!("CARGO_BIN_EXE_cascade"))
        .arg(peer.address().to_string())
        .arg(&cascade)
        .run();
    if done.status.code() == Some(99) || done.stderr.contains("unshare") {
        eprintln!("skipped: only root can mount a small disk");
        return;
    }
    let done = done.assert_code(1);
    done.error();
    assert_eq!(done.stdout, "", "nothing is left on the disk");
    assert!(peer.asked().is_empty(), "it was found out before");
}

#[test]
fn a_broken_configuration_of_the_tracker_is_an_error() {
    let scene = Scene::new();
    let config = scene.path("config.json");
    for text in [
        "{",
        "[]",
        r#"{"port": 65536}"#,
        r#"{"allowedhashes": ["abc"]}"#,
        r#"{"good-ips": ["nowhere"]}"#,
        r#"{"ban-private": "maybe"}"#,
    ] {
        fs::write(&config, text).expect("a file");
        let tracker = scene.cascade("tracker").args(["-l", "127.0.0.1:0", "-c"]);
        let done = fails(&scene, tracker.arg(&config), 2);
        assert!(done.error().contains("config.json"), "{text}: {done:#?}");
    }
    let missing = scene.cascade("tracker").args(["-c", "missing.json"]);
    fails(&scene, missing, 1);
}
