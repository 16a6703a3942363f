//! Promises about files, names, arguments and outputs that were broken once.

mod common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::peers;
use common::process::{Finished, Process};
use common::sample::Sample;
use common::scene::{Invocation, Scene};
use common::standin::{Accepts, Asked, Conn, StandIn};
use common::{clients, eventually, trackers};
use nix::sys::signal::Signal;

const BLOCK: usize = 4096;
const BLOCKS: usize = 64;
/// How many blocks a download has in mid-course.
const GIVEN: usize = 20;

/// A file, and its cascade file in a scene.
struct Download {
    scene: Scene,
    sample: Sample,
    cascade: PathBuf,
}

impl Download {
    fn new() -> Self {
        Self::of(Sample::new("data", BLOCKS * BLOCK - 5, BLOCK))
    }

    fn of(sample: Sample) -> Self {
        let scene = Scene::new();
        let cascade = sample.write_cascade(&scene.path(""));
        Self {
            scene,
            sample,
            cascade,
        }
    }

    fn data(&self) -> PathBuf {
        self.scene.path("data")
    }

    fn part(&self) -> PathBuf {
        self.sample.part(&self.data())
    }

    fn honest(&self) -> StandIn {
        peers::start(&self.sample, peers::keeps_the_connection_open)
    }

    fn get(&self, peer: &StandIn) -> Invocation<'_> {
        self.scene
            .cascade("get")
            .peer(peer.address())
            .arg(&self.cascade)
    }

    /// A download that waits in its middle while `meddle` does something to it, and then goes on to its end.
    #[track_caller]
    fn get_while(&self, meddle: impl FnOnce()) -> Finished {
        let gate = Arc::new(AtomicBool::new(false));
        let peer = peers::start_with(
            Accepts::Together,
            &self.sample,
            waits_after(GIVEN, Arc::clone(&gate)),
        );
        let get = self.get(&peer).start();
        eventually("what the peer gave is on the disk", || {
            self.sample.held(&self.part()).len() == GIVEN
        });
        meddle();
        gate.store(true, Ordering::SeqCst);
        get.finish()
    }
}

/// Honest, but after so many blocks in all it waits until it may go on.
fn waits_after(
    blocks: usize,
    gate: Arc<AtomicBool>,
) -> impl Fn(&mut Conn, &Sample) -> io::Result<()> + Send + Sync + 'static {
    let given = std::sync::atomic::AtomicUsize::new(0);
    move |conn, sample| {
        while let Some(asked) = conn.request(sample)? {
            if given.fetch_add(1, Ordering::SeqCst) >= blocks {
                // Not for ever: a test that failed does not open the gate.
                let mut looks = 0;
                while !gate.load(Ordering::SeqCst) && looks < 10_000 {
                    conn.pause(Duration::from_millis(3));
                    looks += 1;
                }
            }
            conn.send(&peers::block(sample, &asked))?;
        }
        Ok(())
    }
}

#[test]
fn a_part_file_that_was_replaced_does_not_get_the_final_name() {
    let download = Download::new();
    let ended = download.get_while(|| {
        fs::remove_file(download.part()).expect("it is there");
        fs::write(download.part(), "somebody's").expect("another file");
    });
    let ended = ended.assert_code(1);
    ended.error();
    assert!(ended.results().is_empty(), "{ended:#?}");
    assert!(!download.data().exists(), "nothing has the final name");
    let there = fs::read(download.part()).expect("the other file is left alone");
    assert_eq!(there, b"somebody's");
}

#[test]
fn a_part_file_that_was_cut_never_becomes_a_wrong_file() {
    let download = Download::new();
    let ended = download.get_while(|| {
        let part = fs::File::options().write(true).open(download.part());
        part.and_then(|part| part.set_len(0)).expect("our own file");
    });
    if ended.status.success() {
        download.sample.assert_complete(&download.data());
        return;
    }
    ended.assert_code(1).error();
    assert!(!download.data().exists(), "nothing has the final name");
}

#[test]
fn two_files_of_one_name_do_not_go_to_one_place() {
    let scene = Scene::new();
    let (one, other) = (
        Sample::new("x", 5 * BLOCK, BLOCK),
        Sample::new("x", 6 * BLOCK, BLOCK),
    );
    let cascades = [
        one.write_cascade(&scene.directory("d1")),
        other.write_cascade(&scene.directory("d2")),
    ];
    let out = scene.directory("out");
    let seed = peers::start(&one, peers::keeps_the_connection_open);
    let ended = scene
        .cascade("get")
        .peer(seed.address())
        .args(cascades)
        .arg("-d")
        .arg(&out)
        .run()
        .assert_code(1);
    assert!(ended.error().contains("d2/x.cascade"), "{ended:#?}");
    one.assert_complete(&out.join("x"));
}

#[test]
fn a_file_that_is_named_twice_is_downloaded_once() {
    let download = Download::new();
    let seed = download.honest();
    let ended = download
        .scene
        .cascade("get")
        .peer(seed.address())
        .args(["data.cascade", "./data.cascade"])
        .run()
        .assert_code(0);
    assert_eq!(ended.results().len(), 1, "{ended:#?}");
    download.sample.assert_complete(&download.data());
    let asked: BTreeSet<u64> = seed.asked().iter().map(Asked::block).collect();
    assert_eq!(asked.len(), seed.asked().len(), "no block is asked twice");
}

#[test]
fn a_data_file_of_right_blocks_that_is_wrong_as_a_whole_stays_wrong() {
    let sample = Sample::new("data", BLOCKS * BLOCK, BLOCK).with_wrong_whole_hash();
    let download = Download::of(sample);
    download.sample.write_data(&download.scene.path(""));
    for _ in 0..2 {
        let ended = download.get(&download.honest()).run().assert_code(1);
        ended.error();
        assert!(ended.results().is_empty(), "{ended:#?}");
        download.sample.assert_complete(&download.data());
    }
}

#[test]
fn a_data_file_that_is_wrong_as_a_whole_is_not_served() {
    let sample = Sample::new("data", BLOCKS * BLOCK, BLOCK).with_wrong_whole_hash();
    let download = Download::of(sample);
    download.sample.write_data(&download.scene.path(""));
    let good = Sample::new("good", 3 * BLOCK, BLOCK);
    good.write_data(&download.scene.path(""));
    let peer = download
        .scene
        .cascade("peer")
        .args(["-l", "127.0.0.1:0"])
        .arg(&download.cascade)
        .arg(good.write_cascade(&download.scene.path("")))
        .serve();
    let status = |sample: &Sample, block| {
        let request = clients::request(&sample.hash(), block);
        clients::ask(peer.address(), &request).expect("an answer").0
    };
    eventually("the peer says what is wrong", || {
        peer.process().stderr().contains("cascade: cannot ")
    });
    assert_eq!(status(&good, 1), 0, "the other file is served");
    for block in download.sample.all() {
        assert_ne!(status(&download.sample, block), 0, "block {block}");
    }
    peer.stop();
    download.sample.assert_complete(&download.data());
}

#[test]
fn a_command_that_is_not_utf8_is_a_usage_error() {
    let scene = Scene::new();
    let ended = scene
        .program(env!("CARGO_BIN_EXE_cascade"))
        .arg(OsStr::from_bytes(b"\xff\xfe"))
        .run()
        .assert_code(2);
    ended.error();
}

#[test]
fn a_cascade_file_whose_name_is_not_utf8_names_a_file() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 5000, 1024));
    let cascade = scene.path(OsStr::from_bytes(b"\xff\xfe.cascade"));
    fs::write(&cascade, &sample.cascade).expect("names are bytes");
    let tracker = scene
        .cascade("tracker")
        .args(["-l", "127.0.0.1:0"])
        .arg(&cascade)
        .serve();
    let peer = "127.0.0.1:4321".parse().expect("an address");
    let subscribe = trackers::request(2, &sample.hash(), peer);
    let answer = trackers::ask(tracker.address(), &subscribe).expect("an answer");
    assert_eq!(answer.0, 0, "the hash is tracked");
    let listed = scene
        .cascade("list")
        .tracker(tracker.address())
        .arg(&cascade)
        .run()
        .assert_code(0);
    assert!(listed.stdout.starts_with("127.0.0.1:4321 "), "{listed:#?}");
}

#[test]
fn an_empty_variable_names_no_tracker() {
    let download = Download::new();
    download
        .get(&download.honest())
        .env("CASCADE_TRACKER", "")
        .run()
        .assert_code(0)
        .assert_no_error();
    download.sample.assert_complete(&download.data());
    let listed = download
        .scene
        .cascade("list")
        .env("CASCADE_TRACKER", "")
        .arg(&download.cascade)
        .run()
        .assert_code(2);
    listed.error();
}

#[test]
fn a_file_size_limit_is_an_error_like_any_other() {
    let download = Download::new();
    let honest = download.honest();
    let script = "ulimit -f 16; exec \"$0\" get -p \"$1\" data.cascade";
    let ended = download
        .scene
        .program("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_cascade")])
        .arg(honest.address().to_string())
        .run()
        .assert_code(1);
    ended.error();
    let said = ended.stderr.to_lowercase();
    assert!(!said.contains("signal") && !said.contains("sigxfsz"));
    assert!(!download.data().exists());
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    get_into_a_full_device(&[]);
}

#[test]
fn events_that_cannot_be_written_are_an_error_that_is_said_once() {
    get_into_a_full_device(&["--json"]);
}

/// Downloads from a peer that is right and one that is not there; a full device takes the results.
fn get_into_a_full_device(options: &[&str]) {
    let download = Download::new();
    let honest = download.honest();
    let ended = download
        .scene
        .program("sh")
        .args(["-c", "exec \"$0\" get \"$@\" data.cascade > /dev/full"])
        .arg(env!("CARGO_BIN_EXE_cascade"))
        .args(options)
        .peer(honest.address())
        .peer(trackers::nobody_there())
        .run()
        .assert_code(1);
    let errors = ended.stderr.matches("cannot write to standard output");
    assert_eq!(errors.count(), 1, "{ended:#?}");
    download.sample.assert_complete(&download.data());
}

#[test]
fn a_peer_whose_events_cannot_be_written_serves_all_the_same() {
    let download = Download::new();
    download.sample.write_data(&download.scene.path(""));
    let (_reserved, address) = trackers::reserved();
    let peer = download
        .scene
        .program("sh")
        .args([
            "-c",
            "exec \"$0\" peer --json -l \"$1\" data.cascade > /dev/full",
        ])
        .arg(env!("CARGO_BIN_EXE_cascade"))
        .arg(address.to_string())
        .start();
    eventually("it listens", || TcpStream::connect(address).is_ok());
    let request = clients::request(&download.sample.hash(), 3);
    let (status, _) = clients::ask(address, &request).expect("an answer");
    assert_eq!(status, 0);
    peer.signal(Signal::SIGTERM);
    let ended = peer.finish().assert_code(0);
    let errors = ended.stderr.matches("cannot write to standard output");
    assert_eq!(errors.count(), 1, "{ended:#?}");
}

#[test]
fn a_state_file_in_a_missing_directory_is_an_error_at_once() {
    let scene = Scene::new();
    let tracker = scene
        .cascade("tracker")
        .args(["--open", "-l", "127.0.0.1:0", "--state", "missing/state"])
        .start();
    let ended = tracker.finish_within(Duration::from_secs(10));
    let ended = ended.assert_code(1);
    assert!(ended.error().contains("missing/state"), "{ended:#?}");
    assert!(ended.stdout.is_empty(), "it never listened: {ended:#?}");
}

#[test]
fn a_download_that_waits_for_a_silent_tracker_ends_promptly() {
    let download = Download::new();
    let tracker = trackers::start(|conn, _| conn.hang());
    let get: Process = download
        .scene
        .cascade("get")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0"])
        .arg(&download.cascade)
        .start();
    eventually("the tracker is asked", || !tracker.asked().is_empty());
    get.signal(Signal::SIGTERM);
    get.finish_within(Duration::from_secs(2))
        .assert_signal(Signal::SIGTERM);
    assert!(!download.part().exists(), "nothing was downloaded");
}

#[test]
fn a_timeout_says_how_long_nothing_came_and_what_is_missing() {
    let download = Download::new();
    let stalling = peers::start_with(
        Accepts::Together,
        &download.sample,
        peers::stalls_after(GIVEN),
    );
    let ended = download
        .get(&stalling)
        .args(["--timeout", "1"])
        .run()
        .assert_code(3);
    let error = ended.error();
    assert!(error.contains(" 1s"), "the time: {error}");
    assert!(error.contains("44 of 64 blocks"), "the blocks: {error}");
}
