//! Files that are known by a link or a hash: the cascade file is fetched from a peer, and believed only where it has
//! the hash.

mod common;

use std::fs;
use std::io;
use std::time::Duration;

use common::eventually;
use common::peers::{self, announced, response, start};
use common::process::Server;
use common::sample::Sample;
use common::scene::Scene;
use common::standin::{Accepts, Conn};
use nix::sys::signal::Signal;

const NAME: &str = "disk image.bin";

fn sample() -> Sample {
    Sample::new("disk.bin", 300_000, 65_536)
}

fn link(tracker: std::net::SocketAddr, sample: &Sample, name: &str) -> String {
    format!("cascade://{tracker}/{}/{name}", sample.hex())
}

/// A tracker, and a peer of ours that has the file.
fn swarm(scene: &Scene, sample: &Sample) -> (Server, Server) {
    let tracker = scene.tracker();
    let seed = scene.directory("seed");
    sample.write_data(&seed);
    let cascade = sample.write_cascade(&seed);
    let peer = scene
        .cascade("peer")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0"])
        .arg(cascade)
        .serve();
    (tracker, peer)
}

/// Answers a question for the cascade file with these bytes, and serves blocks.
fn answers(bytes: Vec<u8>) -> impl Fn(&mut Conn, &Sample) -> io::Result<()> + Send + Sync {
    move |conn, sample| {
        while let Some(asked) = conn.request(sample)? {
            match asked.bytes[15] {
                2 if asked.is_extended() => conn.send(&bytes)?,
                1 if asked.is_extended() => conn.send(&response(5, b""))?,
                _ => conn.send(&peers::block(sample, &asked))?,
            }
        }
        Ok(())
    }
}

#[test]
fn a_link_is_all_that_get_needs() {
    let (scene, sample) = (Scene::new(), sample());
    let (tracker, _peer) = swarm(&scene, &sample);
    let link = link(tracker.address(), &sample, "disk%20image.bin");
    let done = scene.cascade("get").arg(&link).run().assert_code(0);
    done.assert_no_error();
    assert_eq!(done.results(), [sample.line(NAME.as_ref())]);
    sample.assert_complete(&scene.path(NAME));
    let cascade = fs::read(scene.path(format!("{NAME}.cascade"))).expect("it was kept");
    assert!(cascade == sample.cascade);
    // What is there is used: nobody has to be asked again.
    let again = scene.cascade("get").arg(&link).run().assert_code(0);
    assert_eq!(again.results(), [sample.line(NAME.as_ref())]);
}

#[test]
fn a_directory_or_an_output_says_where_the_file_of_a_link_goes() {
    let (scene, sample) = (Scene::new(), sample());
    let (tracker, _peer) = swarm(&scene, &sample);
    let link = link(tracker.address(), &sample, "x");
    let there = scene.directory("there");
    scene
        .cascade("get")
        .arg("-d")
        .arg(&there)
        .arg(&link)
        .run()
        .assert_code(0);
    sample.assert_complete(&there.join("x"));
    assert!(there.join("x.cascade").exists());
    scene
        .cascade("get")
        .arg("-o")
        .arg(there.join("y"))
        .arg(&link)
        .run()
        .assert_code(0);
    sample.assert_complete(&there.join("y"));
    assert!(there.join("y.cascade").exists() && !scene.path("x").exists());
}

#[test]
fn a_hash_and_a_tracker_or_a_peer_do_the_same() {
    let (scene, sample) = (Scene::new(), sample());
    let (tracker, peer) = swarm(&scene, &sample);
    let get = || scene.cascade("get").arg(sample.hex());
    let tracked = get().tracker(tracker.address()).args(["-o", "tracked"]);
    tracked.run().assert_code(0).assert_no_error();
    sample.assert_complete(&scene.path("tracked"));
    let named = get().peer(peer.address()).args(["-o", "named"]);
    named.run().assert_code(0).assert_no_error();
    sample.assert_complete(&scene.path("named"));
    let nameless = get().tracker(tracker.address()).run().assert_code(2);
    assert!(nameless.error().contains("-o"), "{nameless:?}");
    let nameless = scene.cascade("peer").arg(sample.hex()).run().assert_code(2);
    assert!(nameless.error().contains("link"), "{nameless:?}");
}

#[test]
fn a_peer_of_a_link_downloads_and_passes_on_data_and_cascade_file() {
    let (scene, sample) = (Scene::new(), sample());
    let (tracker, first) = swarm(&scene, &sample);
    let link = link(tracker.address(), &sample, "mirror");
    let second = scene
        .cascade("peer")
        .args(["-l", "127.0.0.1:0"])
        .arg(&link)
        .serve();
    eventually("the mirror is complete", || scene.path("mirror").exists());
    first.stop();
    let third = scene
        .cascade("get")
        .peer(second.address())
        .arg(sample.hex());
    third.args(["-o", "third"]).run().assert_code(0);
    sample.assert_complete(&scene.path("third"));
    second.stop();
}

#[test]
fn a_hostile_link_is_a_wrong_command_line_and_touches_nothing() {
    let (scene, sample) = (Scene::new(), sample());
    let place = scene.directory("place");
    for name in [
        "..",
        "%2e%2e%2fx",
        "..%2Fx",
        "%2Ftmp%2Fx",
        ".hidden",
        "a%00b",
        "a%1b%5b2J",
        "a%0ab",
        "",
        "a/b",
    ] {
        let link = link("127.0.0.1:1".parse().expect("an address"), &sample, name);
        for command in ["get", "peer"] {
            let done = scene.cascade(command).arg(&link).run().assert_code(2);
            assert!(!done.error().contains('\x1b'), "{done:?}");
        }
    }
    for entry in fs::read_dir(scene.path(".")).expect("it can be read") {
        let name = entry.expect("an entry").file_name();
        assert!(name == "place" || name == ".output", "{name:?}");
    }
    assert_eq!(fs::read_dir(place).expect("it can be read").count(), 0);
}

#[test]
fn a_cascade_file_that_ends_early_is_said_of_its_peer() {
    let (scene, sample) = (Scene::new(), sample());
    let mut cut = response(6, &sample.cascade);
    cut.truncate(cut.len() - 7);
    let short = peers::start_with(Accepts::Together, &sample, move |conn, sample| {
        conn.request(sample)?;
        conn.send(&cut)
    });
    for (option, said) in [("--json", 2), ("-q", 1)] {
        let get = scene.cascade("get").peer(short.address());
        let get = get.args([option, "-o", "x"]).arg(sample.hex());
        let done = get.run().assert_code(3);
        let reason = format!("{}: it sent less than it announced", short.address());
        assert_eq!(done.stderr.matches(&reason).count(), said, "{done:?}");
        assert!(done.error().contains(&reason), "{done:?}");
    }
}

#[test]
fn a_cascade_file_without_the_hash_is_refused_and_that_of_another_peer_taken() {
    let (scene, sample) = (Scene::new(), sample());
    let mut lie = sample.cascade.clone();
    lie[70] ^= 1;
    let liar = peers::start_with(Accepts::Together, &sample, answers(response(6, &lie)));
    let short = response(6, &sample.cascade[..64]);
    let short = peers::start_with(Accepts::Together, &sample, answers(short));
    let only = scene
        .cascade("get")
        .peer(liar.address())
        .peer(short.address());
    let done = only
        .arg(sample.hex())
        .args(["-o", "x"])
        .run()
        .assert_code(3);
    let reason = "what it sent does not have the hash";
    let why = format!(
        "no peer is left to ask ({}: {reason}; {}: {reason}); name another peer (-p) or a tracker (-t), or copy the cascade \
         file here yourself",
        liar.address(),
        short.address()
    );
    assert!(done.error().ends_with(&why), "{done:?}");
    assert!(done.stderr.contains("does not have the hash"), "{done:?}");
    assert_eq!(
        (liar.asked().len(), short.asked().len()),
        (1, 1),
        "asked once"
    );
    assert!(!scene.path("x.cascade").exists() && !scene.path("x").exists());
    assert!(!sample.part(&scene.path("x")).exists());

    let honest = response(6, &sample.cascade);
    let honest = peers::start_with(Accepts::Together, &sample, answers(honest));
    let get = scene
        .cascade("get")
        .peer(liar.address())
        .peer(honest.address());
    get.arg(sample.hex()).args(["-o", "x"]).run().assert_code(0);
    sample.assert_complete(&scene.path("x"));
    let first = &honest.asked()[0];
    assert_eq!(&first.bytes[8..16], b"CSX1\0\0\0\x02");
    assert_eq!(first.block(), 0);
    honest.assert_well_treated();
}

#[test]
fn an_announcement_of_too_much_is_refused_before_it_is_read() {
    let (scene, sample) = (Scene::new(), sample());
    for length in [(64 << 20) + 1, u64::MAX] {
        let boast = announced(6, length, b"x");
        let boaster = peers::start_with(Accepts::Together, &sample, answers(boast));
        let get = scene.cascade("get").peer(boaster.address());
        let done = get.arg(sample.hex()).args(["-o", "x"]).run().assert_code(3);
        assert!(done.stderr.contains("more than 64 MiB"), "{done:?}");
        assert_eq!(boaster.asked().len(), 1);
    }
}

#[test]
fn peers_without_the_extension_are_not_at_fault_and_not_asked_again() {
    let (scene, sample) = (Scene::new(), sample());
    let status_4 = start(&sample, peers::answers_the_extension_with_status_4);
    let closes = start(&sample, peers::closes_at_the_extension);
    let plain = start(&sample, peers::keeps_the_connection_open);
    let all = [status_4.address(), closes.address(), plain.address()];
    let get = all
        .iter()
        .fold(scene.cascade("get"), |get, peer| get.peer(*peer));
    let done = get.arg(sample.hex()).args(["-o", "x"]).run().assert_code(3);
    // Of each as it happens, and of all in the end.
    for peer in all {
        let said = format!("{peer}: it does not send cascade files");
        assert_eq!(done.stderr.matches(&said).count(), 2, "{done:?}");
    }
    for peer in [&status_4, &closes, &plain] {
        assert_eq!(peer.asked().len(), 1);
        peer.assert_well_treated();
    }
}

#[test]
fn a_cascade_file_may_come_in_any_number_of_segments() {
    let (scene, sample) = (Scene::new(), sample());
    let talk = |conn: &mut Conn, sample: &Sample| {
        while let Some(asked) = conn.request(sample)? {
            if asked.wants_map() {
                conn.send(&response(5, b""))?;
            } else if asked.is_extended() {
                for byte in response(6, &sample.cascade) {
                    conn.send(&[byte])?;
                }
            } else {
                conn.send(&peers::block(sample, &asked))?;
            }
        }
        Ok(())
    };
    let slow = peers::start_with(Accepts::Together, &sample, talk);
    let get = scene.cascade("get").peer(slow.address()).arg(sample.hex());
    get.args(["-o", "x"]).run().assert_code(0);
    sample.assert_complete(&scene.path("x"));
}

#[test]
fn what_has_the_hash_and_is_no_cascade_file_is_an_error() {
    let (scene, mut sample) = (Scene::new(), sample());
    sample.cascade = b"this is another file".to_vec();
    let honest = response(6, &sample.cascade);
    let honest = peers::start_with(Accepts::Together, &sample, answers(honest));
    let get = scene
        .cascade("get")
        .peer(honest.address())
        .arg(sample.hex());
    let done = get.args(["-o", "x"]).run().assert_code(1);
    assert!(done.error().contains("is no cascade file"), "{done:?}");
    assert!(!scene.path("x.cascade").exists());
}

#[test]
fn a_cascade_file_that_is_there_is_never_replaced() {
    let (scene, sample) = (Scene::new(), sample());
    let (tracker, _peer) = swarm(&scene, &sample);
    fs::write(scene.path("x.cascade"), "mine").expect("it can be written");
    let link = link(tracker.address(), &sample, "x");
    let done = scene.cascade("get").arg(link).run().assert_code(1);
    assert!(
        done.error().contains("another file has this name"),
        "{done:?}"
    );
    assert_eq!(
        fs::read(scene.path("x.cascade")).expect("it is there"),
        b"mine"
    );
}

#[test]
fn the_search_ends_with_the_timeout_and_with_a_signal() {
    let (scene, sample) = (Scene::new(), sample());
    let tracker = scene.tracker();
    let link = link(tracker.address(), &sample, "x");
    let get = scene.cascade("get").args(["--timeout", "1"]).arg(&link);
    let done = get.run().assert_code(3);
    assert!(
        done.error().contains("no peer sent it within 1s"),
        "{done:?}"
    );

    let waiting = scene.cascade("get").arg(&link).start();
    eventually("it says that nobody is known", || {
        waiting.stderr().contains("knows no peer")
    });
    waiting.signal(Signal::SIGINT);
    waiting.finish().assert_signal(Signal::SIGINT);

    let waiting = scene.cascade("peer").arg(&link).start();
    eventually("it says that nobody is known", || {
        waiting.stderr().contains("knows no peer")
    });
    waiting.signal(Signal::SIGTERM);
    waiting
        .finish()
        .assert_code(0)
        .assert_within(Duration::from_secs(20));
}

#[test]
fn a_peer_that_comes_later_is_found() {
    let (scene, sample) = (Scene::new(), sample());
    let tracker = scene.tracker();
    let waiting = scene
        .cascade("get")
        .arg(link(tracker.address(), &sample, "x"))
        .start();
    eventually("it says that nobody is known", || {
        waiting.stderr().contains("knows no peer")
    });
    let seed = scene.directory("seed");
    sample.write_data(&seed);
    let cascade = sample.write_cascade(&seed);
    let peer = scene
        .cascade("peer")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0"]);
    let _peer = peer.arg(cascade).serve();
    waiting.finish().assert_code(0);
    sample.assert_complete(&scene.path("x"));
}

#[test]
fn of_several_links_each_is_fetched() {
    let (scene, sample) = (Scene::new(), sample());
    let (tracker, _peer) = swarm(&scene, &sample);
    let other = Sample::new("other.bin", 100_000, 4096);
    let elsewhere = scene.directory("elsewhere");
    other.write_data(&elsewhere);
    let cascade = other.write_cascade(&elsewhere);
    let peer = scene
        .cascade("peer")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0"]);
    let _other = peer.arg(cascade).serve();
    let links = [
        link(tracker.address(), &sample, "a"),
        link(tracker.address(), &other, "b"),
        link(tracker.address(), &sample, "a"),
    ];
    scene.cascade("get").args(links).run().assert_code(0);
    sample.assert_complete(&scene.path("a"));
    other.assert_complete(&scene.path("b"));
}
