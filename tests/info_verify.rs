//! `cascade info` and `cascade verify`, from outside.

mod files;

use std::fs;
use std::os::unix::process::ExitStatusExt;

use files::{
    GOLDEN_DATA_HASH, GOLDEN_HASH, Sandbox, golden_cascade, golden_data, wait_until_it_has_read,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The golden pair of files.
fn golden() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox
        .write("data", golden_data())
        .write("data.cascade", golden_cascade());
    sandbox
}

fn described(name: &str) -> String {
    format!(
        "file:         {name}\ncascade hash: {GOLDEN_HASH}\ndata hash:    {GOLDEN_DATA_HASH}\n\
         length:       1000\nblock size:   64\nblocks:       16\n"
    )
}

fn json(line: &str) -> serde_json::Value {
    assert_eq!(line.lines().count(), 1, "{line:?}");
    serde_json::from_str(line).expect("JSON")
}

#[test]
fn info_shows_what_a_cascade_file_says() {
    let sandbox = golden();
    let one = sandbox.run(&["info", "data.cascade"]).ok();
    assert_eq!(one, described("data.cascade"));
    let two = sandbox
        .run(&["info", "data.cascade", "./data.cascade"])
        .ok();
    let expected = [described("data.cascade"), described("./data.cascade")].join("\n");
    assert_eq!(two, expected);
}

#[test]
fn info_speaks_json() {
    let sandbox = golden();
    let value = json(&sandbox.run(&["info", "--json", "data.cascade"]).ok());
    let expected = serde_json::json!({
        "file": "data.cascade", "hash": GOLDEN_HASH, "length": 1000, "block_size": 64, "blocks": 16,
        "data_hash": GOLDEN_DATA_HASH,
    });
    assert_eq!(value, expected);
}

#[test]
fn a_name_cannot_command_the_terminal() {
    let sandbox = Sandbox::new();
    sandbox.write("a\x1b[2J", golden_cascade());
    let shown = sandbox.run(&["info", "a\x1b[2J"]).ok();
    assert_eq!(shown, described("a\\u{1b}[2J"));
}

/// Bytes that are no cascade file, and why.
fn broken() -> Vec<(Vec<u8>, &'static str)> {
    let with = |at: std::ops::Range<usize>, byte: u8| {
        let mut bytes = golden_cascade();
        bytes[at].fill(byte);
        bytes
    };
    let golden = golden_cascade();
    vec![
        (
            vec![],
            "not a cascade file: it has 0 bytes, the header alone has 64",
        ),
        (
            golden[..63].to_vec(),
            "not a cascade file: it has 63 bytes, the header alone has 64",
        ),
        (
            with(0..8, b'x'),
            "not a cascade file: it does not begin with CASCADE1",
        ),
        (
            golden[..575].to_vec(),
            "invalid cascade file: 16 blocks need 512 bytes of hashes, it has 511",
        ),
        (
            [&golden[..], b"x"].concat(),
            "invalid cascade file: 16 blocks need 512 bytes of hashes, it has 513",
        ),
        (
            golden[..64].to_vec(),
            "invalid cascade file: 16 blocks need 512 bytes of hashes, it has 0",
        ),
        (with(24..32, 0), "invalid cascade file: its block size is 0"),
        (
            with(24..32, 0xff),
            "invalid cascade file: 1 blocks need 32 bytes of hashes, it has 512",
        ),
        (
            with(16..24, 0xff),
            "invalid cascade file: it would describe 288230376151711744 blocks, at most 4294967295 are possible",
        ),
    ]
}

#[test]
fn broken_cascade_files_are_told_apart() {
    let sandbox = golden();
    for (bytes, reason) in broken() {
        sandbox.write("bad.cascade", &bytes);
        let line = format!("cascade: cannot read bad.cascade: {reason}");
        let shown = sandbox.run(&["info", "bad.cascade", "data.cascade"]);
        assert_eq!(shown.failed(1, &line), described("data.cascade"));
        let verified = sandbox.run(&["verify", "bad.cascade", "data.cascade"]);
        assert_eq!(verified.failed(1, &line), "data: OK\n");
    }
}

#[test]
fn cascade_files_that_cannot_be_read_are_errors() {
    let sandbox = golden();
    fs::create_dir(sandbox.path("directory.cascade")).expect("a directory");
    for (name, reason) in [
        ("none.cascade", ": No such file or directory"),
        (
            "directory.cascade",
            "; it is a directory: name the cascade files in it",
        ),
    ] {
        let line = format!("cascade: cannot read {name}{reason}");
        sandbox.run(&["info", name]).failed(1, &line);
        sandbox.run(&["verify", name]).failed(1, &line);
    }
    let ended = sandbox.run(&["verify", "data"]);
    ended.failed(
        1,
        "cascade: cannot tell what data describes: it does not end in .cascade (name it with -o)",
    );
    sandbox.run(&["verify", "-o", "data", "data"]).failed(
        1,
        "cascade: cannot read data: not a cascade file: it does not begin with CASCADE1; did you mean data.cascade?",
    );
}

#[test]
fn good_data_are_ok_wherever_they_lie() {
    let sandbox = golden();
    fs::create_dir(sandbox.path("there")).expect("a directory");
    sandbox
        .write("there/data", golden_data())
        .write("other", golden_data());
    let verify = |arguments: &[&str]| {
        let arguments = [&["verify"], arguments, &["data.cascade"]].concat();
        sandbox.run(&arguments).ok()
    };
    assert_eq!(verify(&[]), "data: OK\n");
    assert_eq!(verify(&["-v"]), "data: OK\n");
    assert_eq!(verify(&["-d", "there"]), "there/data: OK\n");
    assert_eq!(verify(&["-o", "other"]), "other: OK\n");
    let value = json(&verify(&["--json"]));
    let expected = serde_json::json!({
        "file": "data", "cascade": "data.cascade", "hash": GOLDEN_HASH, "ok": true, "blocks": 16, "bad": [],
        "excess": 0,
    });
    assert_eq!(value, expected);
}

#[test]
fn wrong_blocks_are_counted_and_named() {
    let sandbox = golden();
    let mut data = golden_data();
    for block in [3, 4, 5, 6, 7, 9] {
        data[block * 64] ^= 1;
    }
    sandbox.write("data", &data);
    let verify = |option: &str| sandbox.run(&["verify", option, "data.cascade"]).missing();
    let count = "data: 6 of 16 blocks missing or wrong\n";
    assert_eq!(sandbox.run(&["verify", "data.cascade"]).missing(), count);
    assert_eq!(verify("-v"), format!("{count}data: blocks 3-7, 9\n"));
    let value = json(&verify("--json"));
    assert_eq!(value["bad"], serde_json::json!([3, 4, 5, 6, 7, 9]));
    assert_eq!(value["ok"], false);

    let mut data = golden_data();
    data[999] ^= 1;
    sandbox.write("data", &data);
    let one = "data: 1 of 16 blocks missing or wrong\ndata: block 15\n";
    assert_eq!(verify("-v"), one);
}

#[test]
fn short_long_and_missing_data_are_not_ok() {
    let sandbox = golden();
    let verify = || sandbox.run(&["verify", "data.cascade"]).missing();
    sandbox.write("data", &golden_data()[..999]);
    assert_eq!(verify(), "data: 1 of 16 blocks missing or wrong\n");
    sandbox.write("data", "");
    assert_eq!(verify(), "data: 16 of 16 blocks missing or wrong\n");
    sandbox.write("data", [golden_data(), vec![0; 12]].concat());
    assert_eq!(verify(), "data: 12 bytes too long\n");
    let value = json(&sandbox.run(&["verify", "--json", "data.cascade"]).missing());
    assert_eq!(
        (&value["ok"], &value["excess"]),
        (&false.into(), &12.into())
    );
    sandbox.write(
        "data",
        [
            vec![!golden_data()[0]],
            golden_data()[1..].to_vec(),
            vec![0],
        ]
        .concat(),
    );
    let both = "data: 1 of 16 blocks missing or wrong\ndata: 1 byte too long\n";
    assert_eq!(verify(), both);
    fs::remove_file(sandbox.path("data")).expect("removed");
    assert_eq!(verify(), "data: 16 of 16 blocks missing or wrong\n");
}

#[test]
fn an_empty_file_is_there_or_missing() {
    let sandbox = Sandbox::new();
    sandbox.write("data", "");
    sandbox.run(&["create", "data"]).ok();
    assert_eq!(sandbox.run(&["verify", "data.cascade"]).ok(), "data: OK\n");
    fs::remove_file(sandbox.path("data")).expect("removed");
    let missing = sandbox.run(&["verify", "data.cascade"]).missing();
    assert_eq!(missing, "data: missing\n");
}

#[test]
fn data_that_cannot_be_read_are_an_error() {
    let sandbox = golden();
    fs::create_dir(sandbox.path("directory")).expect("a directory");
    nix::unistd::mkfifo(&sandbox.path("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    for (name, reason) in [
        (
            "directory",
            "it is a directory; name the files in it, or pack it into one (tar -cf)",
        ),
        ("pipe", "not a regular file"),
        ("data/x", "Not a directory"),
    ] {
        sandbox
            .run(&["verify", "-o", name, "data.cascade"])
            .failed(1, &format!("cascade: cannot read {name}: {reason}"));
    }
}

#[test]
fn the_highest_status_wins_and_all_files_are_checked() {
    let sandbox = golden();
    sandbox.write("gone.cascade", golden_cascade());
    let ended = sandbox.run(&["verify", "gone.cascade", "none.cascade", "data.cascade"]);
    let printed = ended.failed(
        3,
        "cascade: cannot read none.cascade: No such file or directory",
    );
    assert_eq!(
        printed,
        "gone: 16 of 16 blocks missing or wrong\ndata: OK\n"
    );
}

#[test]
fn one_data_file_for_several_cascade_files_is_a_usage_error() {
    let sandbox = golden();
    let ended = sandbox.run(&["verify", "-o", "x", "data.cascade", "data.cascade"]);
    ended.failed(
        2,
        "cascade: cannot use -o with several files; try 'cascade help'",
    );
    assert_eq!(sandbox.run(&["verify"]).status, Some(2));
    assert_eq!(sandbox.run(&["info"]).status, Some(2));
}

#[test]
fn many_blocks_of_every_size_are_checked_on_all_cores() {
    let sandbox = Sandbox::new();
    let mut data: Vec<u8> = (0..3_000_000u32).map(|i| (i ^ (i >> 9)) as u8).collect();
    for (size, wrong) in [
        ("100", 12_345usize),
        ("65536", 17),
        ("700000", 2),
        ("5MiB", 0),
    ] {
        sandbox.write("data", &data);
        sandbox.run(&["create", "-f", "-b", size, "data"]).ok();
        let block_size = if wrong == 0 {
            0
        } else {
            size.parse().expect("a number")
        };
        data[wrong * block_size] ^= 0x40;
        sandbox.write("data", &data);
        let printed = sandbox.run(&["verify", "-v", "data.cascade"]).missing();
        assert!(
            printed.ends_with(&format!("data: block {wrong}\n")),
            "{printed}"
        );
    }
}

/// The cascade file of a sparse file that takes hours to read; the hashes are wrong.
fn endless(sandbox: &Sandbox) -> fs::File {
    const LENGTH: u64 = 1 << 42;
    let mut cascade = golden_cascade();
    cascade[16..24].copy_from_slice(&LENGTH.to_be_bytes());
    cascade[24..32].copy_from_slice(&(LENGTH / 16).to_be_bytes());
    sandbox.write("data.cascade", cascade);
    sandbox.sparse("data", LENGTH)
}

#[test]
fn data_that_shrink_while_they_are_read_are_missing() {
    let sandbox = Sandbox::new();
    let data = endless(&sandbox);
    let child = sandbox.start(&["verify", "data.cascade"]);
    wait_until_it_has_read(&child, 4 << 20);
    data.set_len(0).expect("shrunk");
    let ended = child.wait_with_output().expect("it ends");
    // It may have said how far it was.
    assert_eq!(ended.status.code(), Some(3));
    assert_eq!(ended.stdout, b"data: 16 of 16 blocks missing or wrong\n");
}

#[test]
fn a_signal_ends_a_verification() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let sandbox = Sandbox::new();
        endless(&sandbox);
        let mut child = sandbox.start(&["verify", "data.cascade"]);
        wait_until_it_has_read(&child, 4 << 20);
        kill(Pid::from_raw(child.id() as i32), signal).expect("alive");
        let status = child.wait().expect("it ends");
        assert_eq!(status.signal(), Some(signal as i32));
    }
}
