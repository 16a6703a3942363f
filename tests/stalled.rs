//! A download that nobody can complete.

mod common;

use common::download::Download;
use common::eventually;
use common::trackers;
use nix::sys::signal::Signal;

#[test]
fn download_that_nobody_can_complete_says_so_once_and_what_to_do() {
    let download = Download::new();
    let stalling = download.stalling();
    let records = trackers::records(&[stalling.address()]);
    let tracker = trackers::always(trackers::response(0, &records));
    let get = download.scene.cascade("get").tracker(tracker.address());
    let get = get.arg("--no-serve").arg(&download.cascade).start();
    let line = "44 blocks are with nobody who can be reached";
    eventually("it says what it waits for", || get.stderr().contains(line));
    get.signal(Signal::SIGINT);
    let ended = get.finish().assert_signal(Signal::SIGINT);
    assert_eq!(ended.stderr.matches(line).count(), 1, "{ended:#?}");
    assert!(ended.stderr.contains("--timeout gives up"), "{ended:#?}");
}
