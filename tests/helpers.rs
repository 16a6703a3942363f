//! Processes that do something for others, and what becomes of that when they are killed: nothing is lost.

mod common;

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use common::process::Server;
use common::procfs;
use common::scene::{Invocation, Scene};
use common::subject::MODELS;
use common::{eventually, trackers};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// The file of which all peers are.
const HASH: [u8; 32] = [7; 32];

fn tracker<'a>(scene: &'a Scene, state: &Path) -> Invocation<'a> {
    let tracker = scene
        .cascade("tracker")
        .args(["--open", "-v", "-l", "127.0.0.1:0"]);
    tracker.arg("--state").arg(state)
}

fn peer(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

fn subscribe(tracker: &Server, port: u16) {
    let request = trackers::request(2, &HASH, peer(port));
    let (status, _) = trackers::ask(tracker.address(), &request).expect("an answer");
    assert_eq!(status, 0);
}

/// Whether a peer is in the file.
fn is_saved(state: &Path, port: u16) -> bool {
    fs::read_to_string(state).is_ok_and(|text| text.contains(&format!(" {} ", peer(port))))
}

/// The process that keeps the helpers, and those: it is the only child that has children.
fn helpers(tracker: &Server) -> (Pid, Vec<Pid>) {
    let mut found = None;
    eventually("the helpers run", || {
        let mut children = procfs::children(tracker.process().pid()).into_iter();
        found = children.find_map(|child| {
            let helpers = procfs::children(child);
            (!helpers.is_empty()).then_some((child, helpers))
        });
        found.is_some()
    });
    found.expect("they do")
}

fn kill_helpers(tracker: &Server) {
    for helper in helpers(tracker).1 {
        // It may have ended with the one before.
        let _ = kill(helper, Signal::SIGKILL);
    }
}

#[test]
fn a_state_is_saved_though_the_process_that_writes_it_is_killed() {
    for model in ["process", "prefork", "event", "thread"] {
        let scene = Scene::new();
        let state = scene.path("state");
        let tracker = tracker(&scene, &state).args(["--model", model]).serve();
        for port in [1, 2, 3] {
            kill_helpers(&tracker);
            subscribe(&tracker, port);
            eventually("the peer is saved", || is_saved(&state, port));
        }
        kill_helpers(&tracker);
        let ended = tracker.stop();
        assert!(is_saved(&state, 3), "{model}: {ended:#?}");
        let said = "ended: signal 9 (SIGKILL); it is started again";
        assert!(ended.stderr.contains(said), "{model}: {ended:#?}");
    }
}

#[test]
fn whoever_writes_a_state_may_be_killed_at_any_moment() {
    let scene = Scene::new();
    let state = scene.path("state");
    let tracker = tracker(&scene, &state).serve();
    for port in 1..20 {
        subscribe(&tracker, port);
        let (keeper, helpers) = helpers(&tracker);
        // Also the one that hands the state on, which is a child of the tracker's as those that serve connections are.
        let children = procfs::children(tracker.process().pid()).into_iter();
        for pid in children.filter(|child| *child != keeper).chain(helpers) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    subscribe(&tracker, 20);
    eventually("the last one is saved", || is_saved(&state, 20));
    let before = trackers::list(tracker.address(), &HASH);
    assert!(!before.is_empty());
    tracker.stop();
    let text = fs::read_to_string(&state).expect("a state");
    assert!(text.ends_with("\nend 20\n"), "{text}");
}

#[test]
fn a_configuration_is_read_again_though_the_process_that_opens_it_is_killed() {
    let scene = Scene::new();
    let config = scene.path("config");
    let write = |hash: &str| {
        fs::write(&config, format!("{{\"allowedhashes\": [\"{hash}\"]}}")).expect("a file")
    };
    write(&"07".repeat(32));
    let tracker = scene
        .cascade("tracker")
        .args(["-v", "-l", "127.0.0.1:0", "--config"])
        .arg(&config)
        .serve();
    for byte in ["08", "09"] {
        write(&byte.repeat(32));
        kill_helpers(&tracker);
        tracker.process().signal(Signal::SIGHUP);
        let hash = u8::from_str_radix(byte, 16).expect("a number");
        eventually("the new file is tracked", || {
            let request = trackers::request(1, &[hash; 32], peer(0));
            trackers::ask(tracker.address(), &request).is_ok_and(|(status, _)| status == 0)
        });
    }
    tracker.stop();
}

#[test]
fn what_was_registered_a_moment_before_a_kill_is_known_after_it() {
    let scene = Scene::new();
    let state = scene.path("state");
    let first = tracker(&scene, &state).serve();
    // One is saved at once, another soon after it.
    for port in [1, 2] {
        subscribe(&first, port);
        eventually("the peer is saved", || is_saved(&state, port));
    }
    first.process().signal(Signal::SIGKILL);
    first.finish();
    let second = tracker(&scene, &state).serve();
    let mut known = trackers::list(second.address(), &HASH);
    known.sort_unstable();
    assert_eq!(known, [peer(1), peer(2)]);
    second.stop();
}

/// All processes below this one.
fn descendants(of: Pid) -> Vec<Pid> {
    let children = procfs::children(of);
    let below = children.iter().flat_map(|&child| descendants(child));
    below.chain(children.iter().copied()).collect()
}

#[test]
fn a_daemon_ends_after_all_of_its_processes() {
    for model in MODELS {
        let scene = Scene::new();
        scene.directory("files");
        fs::write(scene.path("tracker.toml"), "open = true\n").expect("a file");
        let list = "directory = 'files'\nwatch-dir = true\n";
        fs::write(scene.path("peer.toml"), list).expect("a file");
        let options = [
            "-l",
            "127.0.0.1:0",
            "--control",
            "control",
            "--model",
            model,
        ];
        let tracker = [
            "-c",
            "tracker.toml",
            "--state",
            "state",
            "--http",
            "127.0.0.1:0",
        ];
        let daemons = [
            (scene.cascade("tracker").args(tracker), 5),
            (scene.cascade("peer").args(["-c", "peer.toml"]), 3),
        ];
        for (daemon, least) in daemons {
            let daemon = daemon.args(options).serve();
            let mut processes = Vec::new();
            eventually("its helpers run", || {
                processes = descendants(daemon.process().pid());
                processes.len() >= least
            });
            // As who starts it asks it to end, and waits for that: a service manager kills what is left then.
            kill(daemon.process().pid(), Signal::SIGTERM).expect("it runs");
            wait_for_end(daemon.process().pid());
            processes.retain(|pid| procfs::stat(*pid).is_some());
            assert_eq!(processes, [], "{model}");
            daemon.stop();
        }
    }
}

/// Waits until a child of this process has ended, and leaves it to others to hear how.
fn wait_for_end(pid: Pid) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(pid), flags).expect("a child");
}

#[test]
fn a_tracker_whose_helpers_are_gone_for_good_ends_when_there_is_something_to_save() {
    for model in ["process", "event"] {
        let scene = Scene::new();
        let state = scene.path("state");
        let tracker = tracker(&scene, &state).args(["--model", model]).serve();
        let (keeper, helpers) = helpers(&tracker);
        kill(keeper, Signal::SIGKILL).expect("it runs");
        eventually("the helpers end with who keeps them", || {
            helpers
                .iter()
                .all(|pid| procfs::stat(*pid).is_none_or(|stat| stat.state == 'Z'))
        });
        assert_eq!(
            trackers::list(tracker.address(), &HASH),
            [],
            "it still serves"
        );
        subscribe(&tracker, 1);
        let ended = tracker.finish().assert_code(1);
        let said = format!(
            "cascade: cannot save {}: the process that would do it has ended",
            state.display()
        );
        assert!(ended.stderr.contains(&said), "{ended:#?}");
    }
}

#[test]
fn a_peer_that_has_everything_makes_sure_that_a_tracker_that_was_killed_knows_it() {
    let scene = Scene::new();
    let sample = common::sample::Sample::new("data", 1000, 100);
    let directory = scene.directory("seed");
    sample.write_data(&directory);
    // Without a state it remembers nobody.
    let first = scene.tracker();
    let seed = scene.cascade("peer").args(["-l", "127.0.0.1:0"]);
    let seed = seed
        .tracker(first.address())
        .arg(sample.write_cascade(&directory))
        .serve();
    let knows = |tracker: &Server| !trackers::list(tracker.address(), &sample.hash()).is_empty();
    eventually("the tracker knows the seed", || knows(&first));
    first.process().signal(Signal::SIGKILL);
    let address = first.address().to_string();
    first.finish();
    let second = scene
        .cascade("tracker")
        .args(["--open", "-l", &address])
        .serve();
    eventually("the new tracker knows it, too", || knows(&second));
    seed.stop();
    second.stop();
}

#[test]
fn a_search_goes_on_though_the_process_that_asks_the_tracker_is_killed() {
    let scene = Scene::new();
    let sample = common::sample::Sample::new("data", 1000, 100);
    let tracker = scene.tracker();
    let directory = scene.directory("get");
    let get = scene.cascade("get");
    let get = get.tracker(tracker.address()).args([
        "-o",
        directory.join("data").to_str().expect("text"),
        &sample.hex(),
    ]);
    let process = get.start();
    let announcer = || procfs::children(process.pid()).first().copied();
    eventually("the tracker is asked", || announcer().is_some());
    let first = announcer().expect("it is");
    kill(first, Signal::SIGKILL).expect("it runs");
    eventually("another asks it", || {
        announcer().is_some_and(|pid| pid != first)
    });
    let place = scene.directory("seed");
    sample.write_data(&place);
    let seed = scene.cascade("peer").args(["-l", "127.0.0.1:0"]);
    let seed = seed
        .tracker(tracker.address())
        .arg(sample.write_cascade(&place));
    let seed = seed.serve();
    process.finish().assert_code(0);
    sample.assert_complete(&directory.join("data"));
    seed.stop();
    tracker.stop();
}

#[test]
fn copies_are_counted_though_the_process_that_asks_the_tracker_is_killed() {
    let scene = Scene::new();
    let sample = common::sample::Sample::new("data", 1000, 100);
    let place = scene.directory("share");
    sample.write_data(&place);
    let share = scene
        .cascade("share")
        .args(["--copies", "1", "-l", "127.0.0.1:0"]);
    let share = share
        .args(["--tracker-listen", "127.0.0.1:0"])
        .arg(place.join("data"));
    let share = share.start();
    eventually("there is a link", || {
        share.stdout().contains("cascade get ")
    });
    eventually("all run", || procfs::children(share.pid()).len() == 3);
    // It is the youngest child.
    let lister = || procfs::children(share.pid()).into_iter().max();
    let first = lister().expect("there are children");
    kill(first, Signal::SIGKILL).expect("it runs");
    eventually("another asks", || lister().is_some_and(|pid| pid > first));
    let link = share.stdout();
    let link = link
        .lines()
        .find_map(|line| line.strip_prefix("cascade get "));
    let get = scene.cascade("get").arg("-d").arg(scene.directory("get"));
    let get = get.arg(link.expect("a link")).args(["--seed-for", "1h"]);
    let get = get.start();
    share.finish().assert_code(0);
    get.signal(Signal::SIGTERM);
    get.finish();
}
