//! Promises about peers, trackers and their addresses that were broken once.

mod common;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::process::{Process, Server};
use common::procfs::stat;
use common::sample::Sample;
use common::scene::Scene;
use common::standin::Accepts;
use common::{clients, eventually, holds_within, peers, trackers};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BLOCK: usize = 1024;

fn sample() -> Sample {
    Sample::new("data", 40 * BLOCK + 5, BLOCK)
}

/// A file with its cascade file.
fn complete(scene: &Scene) -> (Sample, PathBuf) {
    let sample = sample();
    sample.write_data(&scene.path(""));
    let cascade = sample.write_cascade(&scene.path(""));
    (sample, cascade)
}

/// Whether a peer serves the first block; one that does not listen serves nothing.
fn serves(peer: SocketAddr, sample: &Sample) -> bool {
    let asked = || {
        let mut stream = TcpStream::connect(peer)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(&clients::request(&sample.hash(), 0))?;
        clients::response(&mut stream)
    };
    asked().is_ok_and(|(status, body)| status == 0 && Some(&body[..]) == sample.block(0))
}

/// The processes of a scene that are children of this one.
fn children(scene: &Scene, parent: Pid) -> Vec<Pid> {
    let is_child = |pid: &Pid| stat(*pid).is_some_and(|stat| stat.parent == parent);
    scene.left().into_iter().filter(is_child).collect()
}

/// Ends the listener of a peer that listens here.
#[track_caller]
fn listener_has_a_successor_at(listen: &str) {
    let scene = Scene::new();
    let (sample, cascade) = complete(&scene);
    let peer = scene
        .cascade("peer")
        .args(["-l", listen])
        .arg(&cascade)
        .serve();
    let supervisor = peer.process().pid();
    assert!(serves(peer.address(), &sample));
    // With everything verified and no tracker, nothing else is left to be a child.
    let mut listener = None;
    eventually("the listener is the only child", || {
        let children = children(&scene, supervisor);
        listener = children.first().copied();
        children.len() == 1
    });
    let old = listener.expect("it was found");
    kill(old, Signal::SIGTERM).expect("it runs");
    let mut successor = None;
    let again = holds_within(Duration::from_secs(5), || {
        successor = children(&scene, supervisor).into_iter().next();
        successor.is_some_and(|pid| pid != old) && serves(peer.address(), &sample)
    });
    assert!(again, "{}", peer.process().stderr());
    let watched = [supervisor, successor.expect("it was found")];
    for _ in 0..3 {
        assert!(serves(peer.address(), &sample));
    }
    let used = || -> u64 {
        let of = |pid: &Pid| stat(*pid).map_or(0, |stat| stat.ticks);
        watched.iter().map(of).sum()
    };
    let before = used();
    // A tick is 10 ms: what spins uses a hundred in a second, or half of them on a busy machine.
    let spins = holds_within(Duration::from_secs(1), || used() >= before + 25);
    assert!(!spins, "{} ticks in a moment", used() - before);
    peer.stop();
    scene.assert_nothing_left();
}

#[test]
fn a_listener_that_is_ended_has_a_successor_that_serves_and_none_spins() {
    listener_has_a_successor_at(&trackers::nobody_there().to_string());
}

#[test]
fn a_listener_on_a_free_port_has_a_successor_on_the_port_that_was_announced() {
    listener_has_a_successor_at("127.0.0.1:0");
}

/// A file that a seed has, behind twenty that nobody has, and the start of their download.
struct Crowd {
    tracker: Server,
    ok: Sample,
    _seed: Server,
    /// Last, for it is dropped last: by then the servers have ended.
    scene: Scene,
}

impl Crowd {
    fn new() -> Self {
        let scene = Scene::new();
        let tracker = scene.tracker();
        let source = scene.directory("source");
        let ok = Sample::new("ok", 20 * BLOCK, BLOCK);
        ok.write_data(&source);
        let seed = scene
            .cascade("peer")
            .tracker(tracker.address())
            .args(["-l", "127.0.0.1:0"])
            .arg(ok.write_cascade(&source))
            .serve();
        eventually("the seed is subscribed", || {
            !trackers::list(tracker.address(), &ok.hash()).is_empty()
        });
        Self {
            scene,
            tracker,
            ok,
            _seed: seed,
        }
    }

    fn get(&self, options: &[&str]) -> Process {
        let here = self.scene.path("");
        let nobodys = (1..=20).map(|number| {
            Sample::new(&format!("n{number}"), 1000 + number, BLOCK).write_cascade(&here)
        });
        self.scene
            .cascade("get")
            .tracker(self.tracker.address())
            .args(["-l", "127.0.0.1:0"])
            .args(options)
            .args(nobodys)
            .arg(self.ok.write_cascade(&here))
            .start()
    }

    fn line(&self) -> String {
        self.ok.line(&self.scene.path("ok"))
    }
}

#[test]
fn twenty_files_that_nobody_has_do_not_keep_another_from_its_turn() {
    let crowd = Crowd::new();
    let get = crowd.get(&[]);
    eventually("the file that somebody has is complete", || {
        get.stdout().contains(&crowd.line())
    });
    crowd.ok.assert_complete(&crowd.scene.path("ok"));
    get.signal(Signal::SIGTERM);
    get.finish().assert_signal(Signal::SIGTERM);
}

#[test]
fn after_a_timeout_what_could_be_downloaded_was_and_the_rest_is_missing() {
    let crowd = Crowd::new();
    let ended = crowd.get(&["--timeout", "3"]).finish().assert_code(3);
    assert_eq!(ended.results(), [crowd.line()]);
    crowd.ok.assert_complete(&crowd.scene.path("ok"));
}

#[test]
fn a_timeout_longer_than_a_turn_ends_a_download_of_more_files_than_have_a_turn_at_once() {
    let crowd = Crowd::new();
    let ended = crowd.get(&["--timeout", "16"]).finish().assert_code(3);
    assert_eq!(ended.results(), [crowd.line()]);
}

fn has_ipv6() -> bool {
    let has = TcpListener::bind("[::1]:0").is_ok();
    if !has {
        eprintln!("skipped: this machine has no IPv6");
    }
    has
}

#[test]
fn a_tracker_named_localhost_knows_a_peer_at_its_ipv4_address() {
    if !has_ipv6() {
        return;
    }
    let scene = Scene::new();
    let (sample, cascade) = complete(&scene);
    // A bare port: on every address of both families.
    let tracker = scene.cascade("tracker").args(["--open", "-l", "0"]).serve();
    let port = tracker.address().port();
    let peer = scene
        .cascade("peer")
        .args(["-l", "127.0.0.1:0", "-t", &format!("localhost:{port}")])
        .arg(&cascade)
        .serve();
    let own = SocketAddrV4::new(Ipv4Addr::LOCALHOST, peer.address().port());
    eventually("the peer is known", || {
        trackers::list((Ipv4Addr::LOCALHOST, port).into(), &sample.hash()) == [own]
    });
    peer.stop();
}

#[test]
fn a_peer_on_ipv6_only_says_so_and_registers_no_address_where_nobody_listens() {
    if !has_ipv6() {
        return;
    }
    let scene = Scene::new();
    let (_, cascade) = complete(&scene);
    let tracker = trackers::always(trackers::response(0, b""));
    let peer = scene
        .cascade("peer")
        .tracker(tracker.address())
        .args(["-l", "[::1]:0"])
        .arg(&cascade)
        .serve();
    eventually("the tracker is asked", || !tracker.asked().is_empty());
    let said = peer.process().stderr();
    assert!(
        said.contains("does not listen on an IPv4 address"),
        "{said}"
    );
    peer.stop();
    for asked in tracker.asked() {
        assert_eq!(asked.command(), 1, "a request for the list: {asked:?}");
        assert_eq!(asked.peer().port(), 0, "{asked:?}");
    }
}

#[test]
fn a_peer_on_both_families_registers_the_port_of_its_ipv4_listener() {
    if !has_ipv6() {
        return;
    }
    let scene = Scene::new();
    let (sample, cascade) = complete(&scene);
    let tracker = scene.tracker();
    let peer = scene
        .cascade("peer")
        .tracker(tracker.address())
        .args(["-l", "[::1]:0", "-l", "127.0.0.1:0"])
        .arg(&cascade)
        .serve();
    eventually("both are printed", || peer.addresses().len() == 2);
    let own = peer.addresses().into_iter().find(SocketAddr::is_ipv4);
    let listed = || trackers::list(tracker.address(), &sample.hash());
    eventually("the peer is known", || !listed().is_empty());
    assert_eq!(listed().into_iter().map(SocketAddr::from).next(), own);
    assert!(serves(own.expect("it is printed"), &sample));
    peer.stop();
}

#[test]
fn a_peer_whose_output_nobody_reads_serves_all_the_same() {
    let scene = Scene::new();
    let (sample, cascade) = complete(&scene);
    let tracker = scene.tracker();
    let peer = scene
        .cascade("peer")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0"])
        .arg(&cascade)
        .start_with_closed_stdout();
    let mut found = None;
    eventually("the peer is known", || {
        found = trackers::list(tracker.address(), &sample.hash()).pop();
        found.is_some()
    });
    assert!(serves(found.expect("it is known").into(), &sample));
    peer.signal(Signal::SIGTERM);
    peer.finish().assert_code(0).assert_no_error();
}

#[test]
fn a_silent_peer_does_not_keep_the_only_worker() {
    let (scene, sample) = (Scene::new(), sample());
    let silent = peers::start(&sample, |conn, _| conn.hang());
    let good = peers::start(&sample, peers::keeps_the_connection_open);
    let get = scene
        .cascade("get")
        .args(["-w", "1"])
        .peer(silent.address())
        .peer(good.address())
        .arg(sample.write_cascade(&scene.path("")))
        .start();
    get.finish_within(Duration::from_secs(20)).assert_code(0);
    sample.assert_complete(&scene.path("data"));
}

#[test]
fn a_peer_that_has_not_what_its_map_says_is_no_loss_while_another_has_it() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 1 << 20, BLOCK));
    let liar = peers::start_with(Accepts::Together, &sample, |conn, sample| {
        while let Some(asked) = conn.request(sample)? {
            if asked.wants_map() {
                conn.send(&peers::response(5, b""))?;
            } else if asked.block().is_multiple_of(3) {
                conn.send(&peers::not_present())?;
            } else {
                conn.send(&peers::block(sample, &asked))?;
            }
        }
        Ok(())
    });
    let slow = peers::takes_its_time(Duration::from_millis(2));
    let good = peers::start_with(Accepts::Together, &sample, slow);
    let get = scene
        .cascade("get")
        .peer(liar.address())
        .peer(good.address())
        .arg(sample.write_cascade(&scene.path("")))
        .start();
    get.finish().assert_code(0);
    sample.assert_complete(&scene.path("data"));
    let asked = liar.asked();
    assert!(asked.iter().any(|asked| asked.wants_map()));
    let refused =
        |asked: &common::standin::Asked| !asked.wants_map() && asked.block().is_multiple_of(3);
    assert!(asked.iter().any(refused), "it was believed");
}

#[test]
fn a_download_serves_on_for_its_time_and_then_ends() {
    let (scene, sample) = (Scene::new(), sample());
    let tracker = scene.tracker();
    let good = peers::start(&sample, peers::keeps_the_connection_open);
    let started = Instant::now();
    let mut get = scene
        .cascade("get")
        .peer(good.address())
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0", "--seed-for", "5"])
        .arg(sample.write_cascade(&scene.path("")))
        .start();
    eventually("it is complete", || get.stdout().contains("  "));
    let mut peer = None;
    eventually("it is subscribed while it serves on", || {
        peer = trackers::list(tracker.address(), &sample.hash()).pop();
        peer.is_some()
    });
    let peer = peer.expect("it was listed");
    assert!(serves(peer.into(), &sample), "it serves on");
    assert!(get.ended().is_none(), "its time is not over");
    let ended = get.finish_within(Duration::from_secs(20)).assert_code(0);
    assert!(started.elapsed() >= Duration::from_secs(5), "{ended:#?}");
    let gone = holds_within(Duration::from_secs(5), || {
        trackers::list(tracker.address(), &sample.hash()).is_empty()
    });
    assert!(gone, "it said farewell");
}
