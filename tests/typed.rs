//! What people type, as they type it: links as mail programs leave them, a tracker without its port, a directory where
//! a file is needed. Each works, or gets a message to act on.

mod common;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use common::peers::{self, keeps_the_connection_open};
use common::process::Finished;
use common::sample::Sample;
use common::scene::Scene;
use common::trackers::nobody_there;

fn sample() -> Sample {
    Sample::new("data", 5000, 1000)
}

/// What this command line says, which ends with this status.
#[track_caller]
fn run(scene: &Scene, words: &[&str], status: i32) -> Finished {
    let run = scene.cascade(words[0]).args(&words[1..]).run();
    run.assert_code(status)
}

/// Checks that the error, one line, says this.
#[track_caller]
fn refused(scene: &Scene, words: &[&str], status: i32, says: &str) {
    let done = run(scene, words, status);
    assert!(done.stderr.contains(says), "{words:?}: {}", done.stderr);
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
}

#[test]
fn a_link_is_read_however_it_was_pasted() {
    let (scene, sample) = (Scene::new(), sample());
    let tracker = scene.tracker();
    sample.write_data(&scene.directory("seed"));
    let cascade = sample.write_cascade(&scene.path("seed"));
    let peer = scene.cascade("peer").tracker(tracker.address());
    let peer = peer.args(["-l", "127.0.0.1:0"]).arg(cascade).serve();
    let (at, hash) = (tracker.address(), sample.hex());
    let (begin, end) = hash.split_at(30);
    for (number, link) in [
        format!("'cascade://{at}/{hash}/got'"),
        format!("<cascade://{at}/{hash}/got>"),
        format!("\u{201e}cascade://{at}/{hash}/got\u{201c}"),
        format!("  cascade://{at}/{hash}/got \n"),
        format!("cascade://{at}/{begin}\r\n> {end}/got"),
        format!("CASCADE://{at}/{hash}/got"),
    ]
    .iter()
    .enumerate()
    {
        let directory = format!("{number}");
        scene.directory(&directory);
        run(&scene, &["get", "--no-serve", "-d", &directory, link], 0);
        sample.assert_complete(&scene.path(directory).join("got"));
    }
    peer.stop();
    tracker.stop();
}

#[test]
fn a_link_that_is_none_says_what_is_wrong_with_it() {
    let (scene, hash) = (Scene::new(), sample().hex());
    let link = format!("cascade://192.0.2.1:8888/{hash}/x");
    let web = format!("http://192.0.2.1:8888/{hash}/x");
    let blank = format!("{link} y");
    for (text, says) in [
        (&link[..40], "it is cut off"),
        (&link[..89], "it is cut off"),
        (&web, &format!("did you mean {link}?")),
        ("https://example.org/disk.img", "begins with cascade://"),
        ("cascade:/x", "begins with cascade://"),
        (&blank, "there is a blank in it"),
    ] {
        refused(&scene, &["get", text], 2, says);
        refused(&scene, &["peer", text], 2, says);
    }
}

#[test]
fn a_tracker_needs_no_port_and_no_scheme() {
    let scene = Scene::new();
    let hash = sample().hex();
    // Whether there is a tracker at its usual port is this machine's business.
    let list = scene.cascade("list").args(["-t", "localhost", &hash]).run();
    assert_ne!(list.status.code(), Some(2), "{list:?}");
    let at = "cannot list the peers at [::1]:8888";
    let list = scene.cascade("list").args(["-t", "[::1]", &hash]).run();
    assert!(
        list.status.success() || list.stderr.contains(at),
        "{list:?}"
    );
    for (tracker, says) in [
        ("http://localhost:8888/", "without http://"),
        ("cascade://localhost:8888/x", "name it without -t"),
        ("::1", "an IPv6 address needs brackets"),
    ] {
        refused(&scene, &["list", "-t", tracker, &hash], 2, says);
        let named = scene.cascade("list").env("CASCADE_TRACKER", tracker);
        let named = named.arg(&hash).run().assert_code(1);
        assert!(named.error().contains(says), "{named:?}");
    }
    let missing = "cannot understand the command line: <CASCADE|LINK|HASH>... is missing; try 'cascade get --help'";
    refused(&scene, &["get"], 2, missing);
    let nobody = "no tracker or peer given: use a link, -t HOST:PORT or -p HOST:PORT";
    refused(&scene, &["get", "data.cascade"], 2, nobody);
}

#[test]
fn what_looks_like_an_option_and_is_a_file_is_told_how_to_be_typed() {
    let scene = Scene::new();
    fs::write(scene.path("-rf"), "data").expect("a file");
    refused(
        &scene,
        &["create", "-rf"],
        2,
        "(for the file of this name, type ./-rf)",
    );
    run(&scene, &["create", "./-rf"], 0);
    let again = scene.cascade("create").args(["-f", "--", "-rf"]).run();
    assert!(again.assert_code(0).stdout.ends_with("  -rf.cascade\n"));
    let done = run(&scene, &["create", "-x"], 2);
    assert!(!done.stderr.contains("./-x"), "{done:?}");
}

#[test]
fn a_directory_is_no_file() {
    let scene = Scene::new();
    scene.directory("DIR");
    sample().write_cascade(&scene.path("."));
    let peer = nobody_there().to_string();
    for words in [&["create", "DIR"][..], &["share", "DIR"]] {
        let says = "cannot read DIR: it is a directory; name the files in it, or pack it into one (tar -cf)";
        refused(&scene, words, 1, says);
    }
    let of_it = "it is a directory: name the cascade files in it";
    for words in [
        &["info", "DIR"][..],
        &["tracker", "-l", "127.0.0.1:0", "DIR"],
        &["list", "-t", &peer, "DIR"],
        &["get", "-p", &peer, "DIR"],
        &["peer", "-p", &peer, "DIR"],
    ] {
        refused(&scene, words, 1, of_it);
    }
    let get = ["get", "-p", &peer, "-o", "DIR", "data.cascade"];
    refused(
        &scene,
        &get,
        1,
        "it is a directory; -d DIR puts the data into it",
    );
}

#[test]
fn a_size_is_exact_or_refused() {
    let scene = Scene::new();
    fs::write(scene.path("f"), "hello\n").expect("a file");
    for size in ["16EiB", "17EiB", "99999999999TiB", "18446744073709551616"] {
        refused(&scene, &["create", "-b", size, "f"], 2, "is more than");
    }
    refused(
        &scene,
        &["create", "-b", "0.1KiB", "f"],
        2,
        "no whole number of bytes",
    );
    run(&scene, &["create", "-b", "1.5KiB", "f"], 0);
    let info = run(&scene, &["info", "--json", "f.cascade"], 0);
    assert!(info.stdout.contains("\"block_size\":1536"), "{info:?}");
}

/// A server that says this to whoever connects.
fn says(text: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(text));
        }
    });
    address
}

#[test]
fn what_is_no_tracker_is_recognised() {
    let (scene, sample) = (Scene::new(), sample());
    let web = says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").to_string();
    let list = |at: &str, says: &str| {
        let begin = format!("cascade: cannot list the peers at {at}: ");
        refused(
            &scene,
            &["list", "-t", at, &sample.hex()],
            1,
            &(begin + says),
        );
    };
    list(&web, "a web server answers there, not a tracker");
    let cascade = sample.write_cascade(&scene.path("."));
    sample.write_data(&scene.path("."));
    let peer = scene.cascade("peer").args(["-l", "127.0.0.1:0"]);
    let peer = peer.arg(cascade).serve();
    let at = peer.address().to_string();
    list(
        &at,
        "it refused, and did not say why; is it a tracker, and not a peer?",
    );
    peer.stop();
}

#[test]
fn two_links_of_one_name_and_two_downloads_to_one_place_are_told_apart() {
    let (scene, one) = (Scene::new(), sample());
    let two = Sample::new("data", 6000, 1000);
    one.write_cascade(&scene.directory("one"));
    two.write_cascade(&scene.directory("two"));
    let peer = peers::start(&one, keeps_the_connection_open);
    let at = peer.address().to_string();
    let both = [
        "get",
        "-p",
        &at,
        "-d",
        ".",
        "one/data.cascade",
        "two/data.cascade",
    ];
    let done = run(&scene, &both, 1);
    let error = done.error();
    assert!(
        error.contains("cannot download two/data.cascade to ./data"),
        "{error}"
    );
    one.assert_complete(&scene.path("data"));

    let links = ["x", "y"].map(|digit| {
        let hash = digit.replace('x', &one.hex()).replace('y', &two.hex());
        format!("cascade://{at}/{hash}/data")
    });
    let says =
        "cannot download two files to data: download one of them into another directory (-d)";
    refused(&scene, &["get", &links[0], &links[1]], 1, says);

    let stalls = peers::start_with(
        common::standin::Accepts::Together,
        &two,
        peers::stalls_after(2),
    );
    let at = stalls.address().to_string();
    let words = ["get", "-p", &at, "-o", "two/data", "two/data.cascade"];
    let first = scene.cascade("get").args(&words[1..]).start();
    common::eventually("it downloads", || {
        two.held(&two.part(&scene.path("two/data"))).len() == 2
    });
    let second = run(&scene, &words, 1);
    assert!(
        second.error().contains("another process is downloading"),
        "{second:?}"
    );
    drop(first);
    scene.kill_all();
}
