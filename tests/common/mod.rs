//! What the end-to-end tests share. A test makes a [`scene::Scene`], runs the built binary in it, and talks to it as
//! a stranger would: nothing here knows how the program works inside.
//!
//! Each program under tests/ compiles all of this and uses a part, hence the `allow`.
#![allow(dead_code)]

pub mod browser;
pub mod clients;
pub mod download;
pub mod network;
pub mod peers;
pub mod process;
pub mod procfs;
pub mod sample;
pub mod scene;
pub mod standin;
pub mod subject;
pub mod terminal;
pub mod trackers;

use std::time::{Duration, Instant};

/// How often a condition is looked at again.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; says whether it did in time.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Whether this is root, who may do what some tests need.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Says that a test does nothing here, and why. What a test prints is shown only where it fails: this is not printed.
pub fn skip(why: &str) {
    use std::io::Write;
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let _ = std::io::stderr().write_all(format!("{test}: skipped: {why}\n").as_bytes());
}

/// Waits until `condition` holds, and fails the test where it does not in good time.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    let limit = Duration::from_secs(30);
    assert!(
        holds_within(limit, condition),
        "not within {limit:?}: {what}"
    );
}
