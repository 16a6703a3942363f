//! Blocks that the disk cannot read: they are missing, and the file goes on.

mod common;

use std::fs;
use std::process::Command;

use common::download::{BLOCK, Download};
use common::process::Finished;
use common::{clients, eventually, skip};

/// Runs a command of which each read of one file fails that begins where `when` says, as strace counts.
fn with_read_errors(
    download: &Download,
    path: &std::path::Path,
    when: &str,
    arguments: &[&str],
) -> Finished {
    let strace = download
        .scene
        .program("strace")
        .args(["-f", "-o", "/dev/null", "-P"]);
    let strace = strace.arg(path).args(["-e", "trace=pread64", "-e"]);
    let strace = strace.arg(format!("inject=pread64:error=EIO:when={when}"));
    strace
        .arg(env!("CARGO_BIN_EXE_cascade"))
        .args(arguments)
        .run()
}

fn has_strace() -> bool {
    Command::new("strace").arg("-V").output().is_ok()
}

#[test]
fn block_of_a_part_that_cannot_be_read_is_fetched_again_and_named() {
    if !has_strace() {
        return skip("there is no strace");
    }
    let download = Download::new();
    fs::write(download.part(), &download.sample.bytes[..40 * BLOCK]).expect("a part");
    let honest = download.honest();
    let from = honest.address().to_string();
    let get = ["get", "--sandbox", "off", "-p", &from, "data.cascade"];
    let done = with_read_errors(&download, &download.part(), "1..2", &get).assert_code(0);
    assert!(done.stderr.contains("cannot read block 0 of "), "{done:#?}");
    assert!(done.stderr.contains("Input/output error"), "{done:#?}");
    download.sample.assert_complete(&download.data());
}

#[test]
fn old_part_that_cannot_be_read_in_places_is_left_alone() {
    if !has_strace() {
        return skip("there is no strace");
    }
    let download = Download::new();
    let old = download.scene.path("data.part");
    fs::write(&old, &download.sample.bytes[..40 * BLOCK]).expect("a part");
    let get = [
        "get",
        "--sandbox",
        "off",
        "-p",
        "127.0.0.1:1",
        "--timeout",
        "1",
        "data.cascade",
    ];
    with_read_errors(&download, &old, "1+2", &get).assert_code(3);
    let kept = fs::read(old).expect("it is there");
    assert_eq!(kept, &download.sample.bytes[..40 * BLOCK]);
}

#[test]
fn verify_names_each_block_that_cannot_be_read() {
    if !has_strace() {
        return skip("there is no strace");
    }
    let download = Download::new();
    download.sample.write_data(&download.scene.path(""));
    let verify = ["verify", "data.cascade"];
    let done = with_read_errors(&download, &download.data(), "1..2", &verify).assert_code(3);
    assert!(done.stderr.contains("cannot read block"), "{done:#?}");
    assert!(done.stdout.contains("missing or wrong"), "{done:#?}");
}

#[test]
fn block_that_cannot_be_read_when_it_is_served_is_named_and_not_offered_any_more() {
    if !has_strace() {
        return skip("there is no strace");
    }
    for model in [
        "iterative",
        "process",
        "thread",
        "prethread",
        "event",
        "prefork",
    ] {
        let download = Download::new();
        download.sample.write_data(&download.scene.path(""));
        let strace = download
            .scene
            .program("strace")
            .args(["-D", "-f", "-o", "/dev/null", "-P"]);
        let strace = strace
            .arg(download.data())
            .args(["-e", "trace=sendfile", "-e"]);
        let strace = strace.arg("inject=sendfile:error=EIO:when=1");
        let strace = strace.arg(env!("CARGO_BIN_EXE_cascade"));
        let peer = [
            "peer",
            "--sandbox",
            "off",
            "--model",
            model,
            "-l",
            "127.0.0.1:0",
        ];
        let server = strace.args(peer).arg(&download.cascade).serve();
        let request = clients::request(&download.sample.hash(), 5);
        let first = clients::ask(server.address(), &request);
        assert!(first.is_err(), "{model}: {first:?}");
        server.says("cannot read block 5 of ");
        // It can be read after all, by a process that has met the error already.
        if ["iterative", "event"].contains(&model) {
            eventually("it is verified again, and served", || {
                clients::ask(server.address(), &request).is_ok_and(|(status, _)| status == 0)
            });
        }
        server.stop();
    }
}
