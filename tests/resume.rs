//! What is on the disk while a download lasts, after it was interrupted, and where something was there before.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use common::download::{BLOCK, BLOCKS, Download, GIVEN};
use common::eventually;
use common::peers;
use common::sample::Sample;
use common::standin::{Accepts, Asked};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;

#[test]
fn after_sigkill_no_process_is_left_the_lock_is_free_at_once_and_blocks_are_kept() {
    let download = Download::new();
    let (_peer, get) = download.get_in_mid_course(&download.part());
    let processes = download.scene.left().len();
    assert!(processes > 1, "the download has workers: {processes}");
    get.signal(Signal::SIGKILL);
    get.finish().assert_signal(Signal::SIGKILL);
    let held = download.sample.held(&download.part());
    assert_eq!(held.len(), GIVEN);
    assert!(!download.data().exists(), "nothing under the final name");
    // At once: before it is checked that the workers are gone.
    download.completes_keeping(&held);
    download.scene.assert_nothing_left();
}

#[test]
fn workers_die_with_their_parent() {
    let download = Download::new();
    let (_peer, get) = download.get_in_mid_course(&download.part());
    get.signal(Signal::SIGKILL);
    get.finish();
    download.scene.assert_nothing_left();
}

#[track_caller]
fn ended_by(signal: Signal) {
    let download = Download::new();
    let (_peer, get) = download.get_in_mid_course(&download.part());
    get.signal(signal);
    get.finish_within(Duration::from_secs(15))
        .assert_signal(signal);
    assert!(
        download.scene.left().is_empty(),
        "the children were reaped before it died"
    );
    let held = download.sample.held(&download.part());
    assert_eq!(held.len(), GIVEN);
    download.completes_keeping(&held);
}

#[test]
fn sigint_ends_the_children_kills_the_download_and_keeps_its_blocks() {
    ended_by(Signal::SIGINT);
}

#[test]
fn sigterm_ends_the_children_kills_the_download_and_keeps_its_blocks() {
    ended_by(Signal::SIGTERM);
}

#[test]
fn an_interrupted_download_without_a_block_leaves_nothing() {
    let download = Download::new();
    let silent = peers::start(&download.sample, |conn, _| conn.hang());
    let get = download.get(&silent).start();
    eventually("the peer is asked", || silent.connections() > 0);
    get.signal(Signal::SIGTERM);
    get.finish().assert_signal(Signal::SIGTERM);
    assert!(!download.part().exists() && !download.data().exists());
}

#[test]
fn the_data_grow_in_the_part_file_and_have_their_name_when_all_is_right() {
    let download = Download::new();
    let (_peer, get) = download.get_in_mid_course(&download.part());
    assert!(
        !download.data().exists(),
        "incomplete, so not under its name"
    );
    drop(get);
}

#[test]
fn disk_space_is_reserved_before_the_first_request() {
    let download = Download::of(Sample::new("data", 2 << 20, 64 << 10));
    let part = download.part();
    let early = peers::start_with(Accepts::Together, &download.sample, move |conn, sample| {
        while let Some(asked) = conn.request(sample)? {
            let reserved = fs::metadata(&part).map_or(0, |part| part.blocks() * 512);
            if reserved < sample.bytes.len() as u64 {
                conn.fault(format!("only {reserved} bytes are reserved"));
            }
            conn.send(&peers::block(sample, &asked))?;
        }
        Ok(())
    });
    download.get(&early).run().assert_code(0);
    early.assert_well_treated();
}

#[test]
fn blocks_of_a_part_file_that_are_wrong_are_fetched_again() {
    let download = Download::new();
    let mut bytes = download.sample.bytes.clone();
    bytes[3 * BLOCK + 1] ^= 1;
    bytes[9 * BLOCK..11 * BLOCK].fill(0);
    bytes.truncate(40 * BLOCK + 100);
    fs::write(download.part(), &bytes).expect("a part file");
    let held: BTreeSet<u64> = (0..40)
        .filter(|block| ![3, 9, 10].contains(block))
        .collect();
    download.completes_keeping(&held);
}

#[test]
fn a_part_file_that_has_everything_needs_no_peer() {
    let download = Download::new();
    fs::write(download.part(), &download.sample.bytes).expect("a part file");
    download.completes_keeping(&download.sample.all());
}

#[test]
fn a_complete_data_file_is_opened_for_reading_only_and_nobody_is_asked() {
    let download = Download::new();
    // Written by another process: what this one opens for writing, one that another test is about to start may close.
    let original = download
        .sample
        .write_data(&download.scene.directory("original"));
    let path = download.data();
    let copy = download.scene.program("cp").arg(original).arg(&path);
    copy.run().assert_code(0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("our own file");
    let before = fs::metadata(&path).expect("it is there");
    // root may write to a read-only file; but whoever opens it for writing also closes it, and that is seen.
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).expect("inotify");
    let written = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MODIFY;
    watch.add_watch(&path, written).expect("a file to watch");
    download.completes_keeping(&download.sample.all());
    assert!(watch.read_events().is_err(), "it was opened for writing");
    let after = fs::metadata(&path).expect("it is there");
    assert_eq!(before.modified().ok(), after.modified().ok());
    assert_eq!(before.ino(), after.ino());
}

#[test]
fn a_second_process_on_the_same_file_says_so_and_ends() {
    let download = Download::new();
    let (_peer, mut first) = download.get_in_mid_course(&download.part());
    let honest = download.honest();
    let second = download
        .get(&honest)
        .run()
        .assert_code(1)
        .assert_within(Duration::from_secs(10));
    assert!(second.error().contains("data"), "{second:#?}");
    assert!(honest.asked().is_empty(), "it asked nobody");
    assert!(first.ended().is_none(), "the first one goes on");
    assert_eq!(download.sample.held(&download.part()).len(), GIVEN);
}

#[test]
fn two_processes_can_use_the_same_complete_file() {
    let download = Download::new();
    download.sample.write_data(&download.scene.path(""));
    let serve = || {
        download
            .scene
            .cascade("peer")
            .args(["-l", "127.0.0.1:0"])
            .arg(&download.cascade)
            .serve()
    };
    let (first, second) = (serve(), serve());
    first.stop();
    second.stop();
}

#[test]
fn where_each_block_is_right_and_the_whole_is_not_the_part_file_is_kept() {
    let sample = Sample::new("data", BLOCKS * BLOCK, BLOCK).with_wrong_whole_hash();
    let download = Download::of(sample);
    let done = download.get(&download.honest()).run().assert_code(1);
    done.error();
    assert!(done.results().is_empty(), "{done:#?}");
    assert!(!download.data().exists(), "nothing under the final name");
    assert_eq!(
        download.sample.held(&download.part()),
        download.sample.all(),
        "all that came is kept"
    );
    // No second attempt can do better, but it says the same and loses nothing.
    let again = download.get(&download.honest()).run().assert_code(1);
    again.error();
    assert_eq!(
        download.sample.held(&download.part()),
        download.sample.all()
    );
}

#[test]
fn a_peer_goes_on_where_an_interrupted_download_ended() {
    let download = Download::new();
    let (peer, get) = download.get_in_mid_course(&download.part());
    drop((peer, get));
    let held = download.sample.held(&download.part());
    let honest = download.honest();
    let daemon = download
        .scene
        .cascade("peer")
        .peer(honest.address())
        .args(["-l", "127.0.0.1:0"])
        .arg(&download.cascade)
        .serve();
    eventually("the file is complete", || download.data().exists());
    download.sample.assert_complete(&download.data());
    let asked: BTreeSet<u64> = honest.asked().iter().map(Asked::block).collect();
    assert_eq!(asked, &download.sample.all() - &held);
    daemon.stop();
}
