//! System calls that are missing, as on old kernels, or denied, as in containers: something stands in for them, or one
//! line names what the system lacks. docs/SYSTEM-CALLS.md has the table.

mod common;

use std::process::Command;
use std::time::Duration;

use common::download::Download;
use common::process::Finished;
use common::skip;

/// Runs `get` where a system call fails in this way, each time.
fn get_without(call: &str, errno: &str) -> (Download, Finished) {
    let download = Download::new();
    let honest = download.honest();
    let strace = download.scene.program("strace");
    let strace = strace
        .args(["-f", "-o", "/dev/null", "-e"])
        .arg(format!("trace={call}"));
    let strace = strace.arg("-e").arg(format!("inject={call}:error={errno}"));
    let strace = strace.arg(env!("CARGO_BIN_EXE_cascade"));
    let get = [
        "get",
        "--sandbox",
        "off",
        "-p",
        &honest.address().to_string(),
        "data.cascade",
    ];
    let ended = strace
        .args(get)
        .run()
        .assert_within(Duration::from_secs(60));
    (download, ended)
}

fn has_strace() -> bool {
    Command::new("strace").arg("-V").output().is_ok()
}

#[test]
fn something_stands_in_for_calls_that_are_missing() {
    if !has_strace() {
        return skip("there is no strace");
    }
    for call in [
        "close_range",
        "fallocate",
        "renameat2",
        "copy_file_range",
        "sendfile",
    ] {
        for errno in ["ENOSYS", "EPERM"] {
            let (download, ended) = get_without(call, errno);
            ended.assert_code(0);
            download.sample.assert_complete(&download.data());
        }
    }
}

#[test]
fn one_line_names_a_call_that_nothing_can_replace() {
    if !has_strace() {
        return skip("there is no strace");
    }
    for call in ["signalfd4", "pipe2", "socketpair", "eventfd2", "prctl"] {
        for errno in ["ENOSYS", "EPERM"] {
            let (_, ended) = get_without(call, errno);
            let ended = ended.assert_code(1);
            let expected = format!("this system denies {call}(2)");
            assert!(ended.error().contains(&expected), "{ended:#?}");
        }
    }
}
