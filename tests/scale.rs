//! A tracker that knows very many peers. `make scale` has a million of them, in a release build; `make check` a few
//! thousand, which takes the same paths.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::eventually;
use common::scene::Scene;
use common::trackers::{ask, list, request};
use nix::unistd::Pid;
use serde_json::Value;

/// Files over which the peers are spread.
const FILES: u32 = 1000;
/// What such a tracker may take, in KiB.
const MEMORY: u64 = 64 << 10;

fn file(n: u32) -> [u8; 32] {
    let mut hash = [0xcd; 32];
    hash[..4].copy_from_slice(&n.to_be_bytes());
    hash
}

/// A tracker's configuration, and a state with so many peers, each of which came from an address of its own.
fn write_files(scene: &Scene, peers: u32) {
    let hashes: Vec<String> = (0..FILES).map(|n| hex::encode(file(n))).collect();
    let config = serde_json::json!({ "allowedhashes": hashes });
    fs::write(scene.path("config"), config.to_string()).expect("written");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    let mut state = String::from("cascade tracker state 1\n");
    for n in 0..peers {
        let (hash, ip) = (
            &hashes[(n % FILES) as usize],
            Ipv4Addr::from(0x0a00_0000 | n),
        );
        writeln!(state, "{hash} {ip}:80 {now} {ip}").expect("a string");
    }
    writeln!(state, "end {peers}").expect("a string");
    fs::write(scene.path("state"), state).expect("written");
}

/// The memory of a process and its children, in KiB: the pages of files are of no account.
fn memory(scene: &Scene) -> u64 {
    let of = |pid: Pid| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let figure = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
        rollup
            .lines()
            .find(|line| line.starts_with("Pss:"))
            .and_then(figure)
            .unwrap_or(0)
    };
    scene.left().into_iter().map(of).sum()
}

/// How long a list takes, from the connect to the close.
fn timed_list(tracker: SocketAddr, n: u32, peers: u32) -> Duration {
    let begin = Instant::now();
    let listed = list(tracker, &file(n % FILES)).len() as u32;
    let took = begin.elapsed();
    assert!(listed >= (peers / FILES).min(20), "only {listed}");
    took
}

/// Loads so many peers, and lists while they are saved: saving keeps nobody waiting, and needs no memory.
fn saved_while_it_serves(peers: u32) -> (Vec<Duration>, u64) {
    let scene = Scene::new();
    write_files(&scene, peers);
    let tracker = scene
        .cascade("tracker")
        .args(["-l", "127.0.0.1:0", "--state", "state", "--max-peers"])
        .arg((peers + 1).to_string())
        .args(["--config", "config"])
        .serve();
    let inode = |path: &Path| fs::metadata(path).expect("a state").ino();
    let (path, address) = (scene.path("state"), tracker.address());
    let before = inode(&path);
    let newcomer = SocketAddrV4::new([192, 0, 2, 1].into(), 80);
    let (status, _) = ask(address, &request(2, &file(0), newcomer)).expect("an answer");
    assert_eq!(status, 0);
    // A change is saved at once where the last one is long ago.
    let (mut took, mut most) = (Vec::new(), memory(&scene));
    eventually("the state is saved", || {
        took.push(timed_list(address, took.len() as u32, peers));
        most = most.max(memory(&scene));
        inode(&path) != before
    });
    let saved = fs::read_to_string(&path).expect("a state");
    assert!(
        saved.ends_with(&format!("end {}\n", peers + 1)),
        "{:?}",
        saved.lines().last()
    );
    tracker.stop().assert_code(0);
    assert!(most <= MEMORY, "{most} KiB");
    (took, most)
}

#[test]
fn many_peers_are_loaded_and_saved_while_others_are_served() {
    saved_while_it_serves(5 * FILES);
}

#[test]
#[ignore = "takes long: make scale"]
fn a_million_peers_are_saved_while_others_are_served() {
    let (mut took, most) = saved_while_it_serves(1000 * FILES);
    took.sort_unstable();
    println!(
        "{} lists while a million peers were saved: median {:?}, longest {:?}; at most {most} KiB",
        took.len(),
        took[took.len() / 2],
        took[took.len() - 1]
    );
}

#[test]
#[ignore = "measures: make scale"]
fn a_list_from_a_million_peers_costs_at_most_twice_what_it_costs_without() {
    let scene = Scene::new();
    let run = scene
        .cascade("compare")
        .args([
            "--service",
            "tracker",
            "--models",
            "process",
            "--clients",
            "16",
        ])
        .args(["--duration", "5", "--json", "figures"])
        .run()
        .assert_code(0);
    let figures = fs::read(scene.path("figures")).expect("figures");
    let figures: Value = serde_json::from_slice(&figures).expect("JSON");
    let filled = &figures["registry"][0];
    println!("{}", run.stdout);
    assert_eq!(filled["peers"], 1_000_000, "not a release build");
    assert!(filled["cost"].as_f64() <= Some(2.0), "{filled}");
    assert!(
        filled["full"]["memory_kib"]["max"].as_f64() <= Some(MEMORY as f64),
        "{filled}"
    );
    assert_eq!(filled["full"]["errors"], 0);
}
