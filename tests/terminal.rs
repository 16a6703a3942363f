//! What a person sees who waits for a download: rows on a terminal, lines elsewhere, and a word when it is interrupted.

mod common;

use std::net::SocketAddr;

use common::eventually;
use common::peers::{self, keeps_the_connection_open};
use common::sample::Sample;
use common::scene::{Invocation, Scene};
use common::standin::{Accepts, StandIn};
use nix::sys::signal::Signal;

fn sample(name: &str) -> Sample {
    Sample::new(name, 1_000_000, 65_536)
}

/// A peer that sends five blocks and no more.
fn stalls(sample: &Sample) -> StandIn {
    peers::start_with(Accepts::Together, sample, peers::stalls_after(5))
}

fn get<'a>(scene: &'a Scene, peer: SocketAddr, samples: &[&Sample]) -> Invocation<'a> {
    let cascades = samples
        .iter()
        .map(|sample| sample.write_cascade(&scene.path(".")));
    scene
        .cascade("get")
        .peer(peer)
        .args(cascades)
        .env("TERM", "xterm")
}

#[test]
fn a_terminal_has_a_row_for_each_file_and_a_total() {
    let (scene, one) = (Scene::new(), sample("one.bin"));
    let two = Sample::new("two.bin", 1_000_001, 65_536);
    two.write_data(&scene.path("."));
    let peer = stalls(&one);
    let (get, terminal) = get(&scene, peer.address(), &[&one, &two]).start_on_terminal(80, 24);
    let rows = ["one.bin  32% [=====>", "\r\ntotal    66% [======="];
    eventually("five blocks are there, and the other file", || {
        rows.iter().all(|row| terminal.text().contains(row))
    });
    for part in ["320/976 KiB", "1/2 done"] {
        assert!(terminal.text().contains(part), "{}", terminal.text());
    }
    let first = terminal.text();
    let first = first.trim_start_matches('\r');
    assert!(first.starts_with("one.bin   "), "{first:?}");
    get.signal(Signal::SIGINT);
    get.finish().assert_signal(Signal::SIGINT);
    let kept = "stopped: 1 file complete, of the rest 320 of 976 KiB are kept; the same command goes on\r\n";
    let text = terminal.text();
    assert!(text.ends_with(kept), "{text:?}");
    drop(peer);
}

#[test]
fn narrow_terminals_have_what_fits() {
    for (columns, row) in [
        (40, "one.bin  32%"),
        (20, "one.bin  32%"),
        (12, "one.bin  3"),
    ] {
        let (scene, one) = (Scene::new(), sample("one.bin"));
        let peer = stalls(&one);
        let (get, terminal) = get(&scene, peer.address(), &[&one]).start_on_terminal(columns, 24);
        eventually("five blocks are there", || terminal.text().contains(row));
        get.signal(Signal::SIGTERM);
        get.finish().assert_signal(Signal::SIGTERM);
        for row in terminal
            .text()
            .split(['\r', '\n'])
            .filter(|row| row.contains('%'))
        {
            let row = row.replace("\x1b[K", "").replace("\x1b[J", "");
            assert!(row.chars().count() < columns.into(), "{row:?}");
        }
    }
}

#[test]
fn a_terminal_that_cannot_move_its_cursor_has_lines() {
    for term in ["dumb", ""] {
        let (scene, one) = (Scene::new(), sample("one.bin"));
        let peer = stalls(&one);
        let get = get(&scene, peer.address(), &[&one]).env("TERM", term);
        let (get, terminal) = get.start_on_terminal(80, 24);
        let line = "one.bin: 32 %, 320 of 976 KiB, ";
        eventually(line, || terminal.text().contains(line));
        get.signal(Signal::SIGINT);
        get.finish().assert_signal(Signal::SIGINT);
        assert!(!terminal.text().contains('\x1b'), "{:?}", terminal.text());
    }
}

#[test]
fn who_interrupts_a_download_hears_what_is_kept() {
    let (scene, one) = (Scene::new(), sample("one.bin"));
    let peer = stalls(&one);
    let running = get(&scene, peer.address(), &[&one]).start();
    eventually("five blocks are there", || {
        one.held(&one.part(&scene.path("one.bin"))).len() == 5
    });
    running.signal(Signal::SIGTERM);
    let ended = running.finish().assert_signal(Signal::SIGTERM);
    let kept = "stopped: 320 of 976 KiB are kept; the same command goes on\n";
    assert!(ended.stderr.ends_with(kept), "{ended:#?}");
}

#[test]
fn who_serves_on_is_told_for_how_long() {
    let (scene, one) = (Scene::new(), sample("one.bin"));
    let (peer, tracker) = (
        peers::start(&one, keeps_the_connection_open),
        scene.tracker(),
    );
    let get = get(&scene, peer.address(), &[&one]).tracker(tracker.address());
    let get = get.args(["--seed-for", "90"]).start();
    let told = "download complete; serving for 1m 30s (Ctrl-C ends it)\n";
    eventually(told, || get.stderr().ends_with(told));
    get.signal(Signal::SIGINT);
    let ended = get.finish().assert_signal(Signal::SIGINT);
    let last = "stopped: the download is complete\n";
    assert!(ended.stderr.ends_with(last), "{ended:#?}");
}
