//! Downloads to which something happens: what was verified is kept, and the exit status and a message say the rest.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::peers;
use crate::common::procfs::children;
use crate::common::sample::Sample;
use crate::common::scene::{Invocation, Scene};
use crate::common::standin::{Accepts, Asked, StandIn};
use crate::common::{clients, eventually, is_root, skip, trackers};

const BLOCK: usize = 64 << 10;
const BLOCKS: usize = 24;

struct Download {
    scene: Scene,
    sample: Sample,
    cascade: PathBuf,
}

impl Download {
    fn new() -> Self {
        let scene = Scene::new();
        let sample = Sample::new("data", BLOCKS * BLOCK - 7, BLOCK);
        let cascade = sample.write_cascade(&scene.path(""));
        Self {
            scene,
            sample,
            cascade,
        }
    }

    fn honest(&self) -> StandIn {
        peers::start(&self.sample, peers::keeps_the_connection_open)
    }

    fn get(&self, peer: &StandIn) -> Invocation<'_> {
        let get = self.scene.cascade("get").arg("-v").arg(&self.cascade);
        get.peer(peer.address())
    }

    fn held(&self) -> BTreeSet<u64> {
        self.sample
            .held(&self.sample.part(&self.scene.path("data")))
    }
}

fn blocks(asked: &[Asked]) -> BTreeSet<u64> {
    asked.iter().map(Asked::block).collect()
}

/// The process that a line of the log tells of: `worker 0 pid 123 for …`.
fn worker(log: &str) -> Option<Pid> {
    let (_, rest) = log.split_once(": worker ")?;
    let (_, rest) = rest.split_once(" pid ")?;
    rest.split(' ').next()?.parse().ok().map(Pid::from_raw)
}

#[test]
fn a_worker_that_is_killed_in_mid_block_has_marked_nothing_that_was_not_verified() {
    const WHOLE: usize = 5;
    let download = Download::new();
    let go_on = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&go_on);
    let peer = peers::start_with(Accepts::Together, &download.sample, move |conn, sample| {
        while let Some(asked) = conn.request(sample)? {
            let answer = peers::block(sample, &asked);
            if conn.number() > 0 {
                // The second worker's turn comes when the test has looked.
                while !gate.load(Ordering::SeqCst) {
                    conn.pause(Duration::from_millis(5));
                }
            } else if conn.asked_so_far() > WHOLE {
                conn.send(&answer[..answer.len() / 2])?;
                return conn.hang();
            }
            conn.send(&answer)?;
        }
        Ok(())
    });
    let listen = trackers::nobody_there().to_string();
    let get = download.get(&peer).args(["-w", "1", "-l", &listen]).start();
    eventually("whole blocks are written, and half of another", || {
        download.held().len() == WHOLE && peer.asked().len() > WHOLE
    });
    let halved = peer.asked()[WHOLE].block();
    kill(
        worker(&get.stderr()).expect("it is logged"),
        Signal::SIGKILL,
    )
    .expect("it runs");
    eventually("another worker has its place", || peer.connections() > 1);
    // What the worker did not report is not served to others.
    let listener = listen.parse().expect("an address");
    let ask = |block| clients::ask(listener, &clients::request(&download.sample.hash(), block));
    assert_eq!(ask(halved).expect("an answer").0, 2, "it is not present");
    let kept = download.held();
    assert_eq!(kept.len(), WHOLE);
    for block in &kept {
        let (status, body) = ask(*block).expect("an answer");
        assert!(status == 0 && Some(&body[..]) == download.sample.block(*block));
    }
    go_on.store(true, Ordering::SeqCst);
    get.finish().assert_code(0);
    download
        .sample
        .assert_complete(&download.scene.path("data"));
    let second: Vec<Asked> = peer
        .asked()
        .into_iter()
        .filter(|asked| asked.connection > 0)
        .collect();
    assert_eq!(blocks(&second), &download.sample.all() - &kept);
}

#[test]
fn a_data_file_that_is_replaced_while_it_is_served_yields_no_wrong_block() {
    let download = Download::new();
    download.sample.write_data(&download.scene.path(""));
    let peer = download.scene.cascade("peer").args(["-l", "127.0.0.1:0"]);
    let peer = peer.arg(&download.cascade).serve();
    let ask = |block| {
        clients::ask(
            peer.address(),
            &clients::request(&download.sample.hash(), block),
        )
    };
    assert_eq!(ask(0).expect("an answer").0, 0);
    fs::write(download.scene.path("other"), vec![b'x'; BLOCKS * BLOCK]).expect("a file");
    fs::rename(download.scene.path("other"), download.scene.path("data")).expect("its place");
    for block in 0..BLOCKS as u64 {
        // The old file, or none: never the new one.
        if let Ok((0, body)) = ask(block) {
            assert!(
                Some(&body[..]) == download.sample.block(block),
                "block {block}"
            );
        }
    }
    peer.stop();
}

#[test]
fn a_tracker_that_dies_in_mid_download_is_no_loss() {
    let download = Download::new();
    let seed = peers::start_with(
        Accepts::Together,
        &download.sample,
        peers::takes_its_time(Duration::from_millis(40)),
    );
    let tracker = download.scene.tracker();
    let std::net::SocketAddr::V4(address) = seed.address() else {
        unreachable!("a stand-in listens on IPv4");
    };
    let subscribe = trackers::request(2, &download.sample.hash(), address);
    trackers::ask(tracker.address(), &subscribe).expect("the tracker answers");
    let get = download.scene.cascade("get").tracker(tracker.address());
    let get = get.arg(&download.cascade).start();
    eventually("it is under way", || download.held().len() > 2);
    tracker.kill();
    get.finish().assert_code(0);
    download
        .sample
        .assert_complete(&download.scene.path("data"));
}

/// Runs a script as root in a mount namespace of its own: `$1` is an empty directory, and what is mounted there goes
/// when the script ends.
fn in_own_mounts<'a>(download: &'a Download, script: &str, peer: &StandIn) -> Invocation<'a> {
    let disk = download.scene.directory("disk");
    let arguments = ["-m", "sh", "-c", script, "sh"];
    let invocation = download.scene.program("unshare").args(arguments).arg(disk);
    invocation
        .arg(env!("CARGO_BIN_EXE_cascade"))
        .arg(peer.address().to_string())
        .arg(&download.cascade)
}

#[test]
fn a_read_only_directory_is_an_error_before_anybody_is_asked() {
    if !is_root() {
        return skip("needs root");
    }
    let download = Download::new();
    let peer = download.honest();
    let script = "mount -t tmpfs none \"$1\" && mount -o remount,ro \"$1\" || exit 99
        exec \"$2\" get -p \"$3\" -d \"$1\" \"$4\"";
    let ended = in_own_mounts(&download, script, &peer).run().assert_code(1);
    assert!(
        ended.error().contains("Read-only file system"),
        "{ended:#?}"
    );
    assert_eq!(peer.connections(), 0, "nobody was asked");
}

/// Crashes and omissions on demand.
#[cfg(feature = "faults")]
mod on_demand {
    use super::*;

    const FAULT: &str = "CASCADE_FAULT";

    /// Nothing is believed of a worker that ends without a word, and the run does not go on for ever.
    #[test]
    fn a_report_pipe_that_ends_without_a_report_counts_as_a_failure() {
        for deed in ["exit", "segv", "panic"] {
            let download = Download::new();
            let honest = download.honest();
            let get = download.get(&honest).env(FAULT, format!("fetched={deed}"));
            let ended = get.start().finish_within(Duration::from_secs(50));
            assert_eq!(ended.status.code(), Some(3), "{ended:#?}");
            assert!(
                ended.error().contains("24 of 24 blocks are missing"),
                "{ended:#?}"
            );
            assert!(!download.scene.path("data").exists());
            download.scene.assert_nothing_left();
        }
    }

    #[test]
    fn a_whole_file_hash_that_dies_without_a_report_is_an_error_and_the_blocks_are_kept() {
        let download = Download::new();
        let honest = download.honest();
        let get = || download.get(&honest);
        let ended = get().env(FAULT, "hasher=segv").run().assert_code(1);
        let error = ended.error();
        assert!(
            error.contains("cannot hash the whole file: signal 11"),
            "{ended:#?}"
        );
        assert!(!download.scene.path("data").exists());
        let kept = download.held();
        let before = honest.asked().len();
        get().run().assert_code(0);
        let again = blocks(&honest.asked()[before..]);
        assert_eq!(again, &download.sample.all() - &kept);
        download
            .sample
            .assert_complete(&download.scene.path("data"));
    }

    /// Where the space was not reserved, as on file systems that cannot, a write finds the disk full.
    #[test]
    fn a_disk_that_is_full_in_mid_download_is_an_error_and_what_was_verified_is_kept() {
        if !is_root() {
            return skip("needs root");
        }
        let download = Download::new();
        let honest = download.honest();
        let script = "mount -t tmpfs -o size=1m none \"$1\" || exit 99
            CASCADE_FAULT=reserving=skip \"$2\" get -p \"$3\" -d \"$1\" \"$4\"
            echo status $? of $(ls \"$1\")
            mount -o remount,size=8m \"$1\" || exit 99
            \"$2\" get -p \"$3\" -d \"$1\" \"$4\"; status=$?
            cp \"$1\"/data . && exit $status";
        let ended = in_own_mounts(&download, script, &honest).run();
        let ended = ended.assert_code(0);
        assert!(
            ended.stdout.starts_with("status 1 of data.") && ended.stdout.contains(".part\n"),
            "{ended:#?}"
        );
        let full = "no space left on device";
        assert!(ended.error().contains(full), "{ended:#?}");
        download
            .sample
            .assert_complete(&download.scene.path("data"));
        // 16 blocks fit on the disk. What was written is not asked for again: only those that failed are.
        let asked = honest.asked().len();
        assert!(
            asked < BLOCKS + BLOCKS / 2,
            "{asked} requests for {BLOCKS} blocks"
        );
    }
}

/// For the tests above that look at a process and its children.
#[test]
fn the_end_of_a_role_is_the_end_of_its_children() {
    let download = Download::new();
    let peer = peers::start_with(Accepts::Together, &download.sample, peers::stalls_after(5));
    let get = download.get(&peer).start();
    eventually("blocks arrive", || download.held().len() == 5);
    let downloader = children(get.pid())
        .into_iter()
        .find(|pid| !children(*pid).is_empty());
    let downloader = downloader.expect("a downloader has workers");
    let workers = children(downloader);
    kill(downloader, Signal::SIGKILL).expect("it runs");
    eventually("its workers have ended", || {
        workers
            .iter()
            .all(|pid| children(downloader).is_empty() && kill(*pid, None).is_err())
    });
    eventually("it is started again", || peer.connections() > 1);
    assert_eq!(download.held().len(), 5, "what was verified is kept");
    get.signal(Signal::SIGTERM);
    get.finish().assert_signal(Signal::SIGTERM);
    download.scene.assert_nothing_left();
}
