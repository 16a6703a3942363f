//! What the end-to-end tests share. A test makes a [`scene::Scene`], runs the built binary in it, and talks to it as
//! a stranger would: nothing here knows how the program works inside.
//!
//! Each program under tests/ compiles all of this and uses a part, hence the `allow`.
#![allow(dead_code)]

pub mod clients;
pub mod peers;
pub mod process;
pub mod procfs;
pub mod sample;
pub mod scene;
pub mod standin;
pub mod subject;
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

/// Waits until `condition` holds, and fails the test where it does not in good time.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    let limit = Duration::from_secs(30);
    assert!(
        holds_within(limit, condition),
        "not within {limit:?}: {what}"
    );
}
