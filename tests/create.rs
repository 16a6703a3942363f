//! `cascade create`, from outside.

mod files;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use files::{GOLDEN_HASH, Sandbox, golden_cascade, golden_data, wait_until_it_has_read};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn the_golden_file_is_made_to_the_bit_each_time() {
    let sandbox = Sandbox::new();
    sandbox.write("data", golden_data());
    let line = format!("{GOLDEN_HASH}  data.cascade\n");
    assert_eq!(sandbox.run(&["create", "-b", "64", "data"]).ok(), line);
    assert_eq!(sandbox.read("data.cascade"), golden_cascade());
    let again = sandbox.run(&["create", "-f", "--block-size", "64B", "data"]);
    assert_eq!(again.ok(), line);
    assert_eq!(sandbox.read("data.cascade"), golden_cascade());
    assert_eq!(sandbox.names(), ["data", "data.cascade"]);
}

#[test]
fn sha256sum_accepts_what_is_printed_whatever_the_name() {
    let sandbox = Sandbox::new();
    let names = ["plain", "with blank", "back\\slash", "new\nline"];
    names.iter().for_each(|name| {
        sandbox.write(name, name);
    });
    let printed = sandbox.run(&["create", names[0], names[1], names[2], names[3]]);
    sandbox.write("sums", printed.ok());
    let check = Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "sums"])
        .current_dir(sandbox.path("."))
        .output()
        .expect("sha256sum runs");
    assert!(check.status.success(), "{check:?}");
}

#[test]
fn every_length_around_a_block_is_described() {
    let sandbox = Sandbox::new();
    for (length, blocks) in [(0, 0), (1, 1), (65536, 1), (65537, 2), (131_072, 2)] {
        sandbox.write("data", vec![7; length]);
        sandbox.run(&["create", "-f", "data"]).ok();
        let cascade = sandbox.read("data.cascade");
        assert_eq!(cascade.len(), 64 + 32 * blocks, "{length}");
        assert_eq!(cascade[16..24], (length as u64).to_be_bytes());
        assert_eq!(cascade[24..32], 65536u64.to_be_bytes());
        let verified = sandbox.run(&["verify", "data.cascade"]);
        assert_eq!(verified.ok(), "data: OK\n");
    }
}

#[test]
fn block_sizes_take_units_and_may_exceed_the_file() {
    let sandbox = Sandbox::new();
    sandbox.write("data", vec![1; 3_000_000]);
    for (text, size) in [
        ("1000", 1000u64),
        ("1KiB", 1024),
        ("64KiB", 65536),
        ("300000", 300_000),
        ("1MiB", 1 << 20),
        ("1TiB", 1 << 40),
    ] {
        sandbox.run(&["create", "-f", "-b", text, "data"]).ok();
        let cascade = sandbox.read("data.cascade");
        assert_eq!(cascade[24..32], size.to_be_bytes(), "{text}");
        sandbox.run(&["verify", "data.cascade"]).ok();
    }
    let none = sandbox.run(&["create", "-b", "0", "data"]);
    assert_eq!(none.status, Some(2));
    assert!(none.stderr.contains("at least one byte"), "{none:?}");
}

#[test]
fn more_blocks_than_there_are_numbers_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.sparse("data", 1 << 33);
    sandbox.run(&["create", "-b", "1", "data"]).failed(
        1,
        "cascade: cannot hash data: it would have 8589934592 blocks, at most 4294967295 are possible",
    );
    assert_eq!(sandbox.names(), ["data"]);
}

#[test]
fn what_exists_is_replaced_only_with_force() {
    let sandbox = Sandbox::new();
    sandbox.write("data", "x").write("data.cascade", "mine");
    sandbox.run(&["create", "data"]).failed(
        1,
        "cascade: cannot write data.cascade: it exists (-f replaces it)",
    );
    assert_eq!(sandbox.read("data.cascade"), b"mine");
    sandbox.run(&["create", "--force", "data"]).ok();
    assert_eq!(sandbox.read("data.cascade").len(), 96);
    assert_eq!(sandbox.names(), ["data", "data.cascade"]);
}

#[test]
fn the_data_file_itself_is_never_replaced() {
    let sandbox = Sandbox::new();
    sandbox.write("data", "precious");
    fs::hard_link(sandbox.path("data"), sandbox.path("same")).expect("linked");
    for output in ["data", "same"] {
        sandbox.run(&["create", "-f", "-o", output, "data"]).failed(
            1,
            &format!("cascade: cannot write {output}: it is the data file itself"),
        );
    }
    assert_eq!(sandbox.read("data"), b"precious");
}

#[test]
fn output_goes_where_it_is_told() {
    let sandbox = Sandbox::new();
    sandbox.write("data", golden_data());
    fs::create_dir(sandbox.path("out")).expect("a directory");
    let line = |name: &str| format!("{GOLDEN_HASH}  {name}\n");
    let one = sandbox.run(&["create", "-b64", "-o", "x y", "data"]);
    assert_eq!(one.ok(), line("x y"));
    let absolute = sandbox.path("data");
    let absolute = absolute.to_str().expect("a plain name");
    let one = sandbox.run(&["create", "-b64", "-d", "out", absolute]);
    assert_eq!(one.ok(), line("out/data.cascade"));
    assert_eq!(sandbox.read("x y"), sandbox.read("out/data.cascade"));
    assert_eq!(sandbox.names(), ["data", "out", "x y"]);
}

#[test]
fn impossible_outputs_are_refused_before_the_hashing() {
    let sandbox = Sandbox::new();
    // Hashing this would take longer than anybody waits.
    sandbox.sparse("data", 1 << 42);
    let create = |arguments: &[&str], reason: &str| {
        let arguments = [&["create"], arguments, &["data"]].concat();
        sandbox
            .run(&arguments)
            .failed(1, &format!("cascade: cannot {reason}"));
    };
    let missing = "No such file or directory";
    create(&["-d", "none"], &format!("use directory none: {missing}"));
    create(&["-d", "data"], "use directory data: not a directory");
    create(&["-o", "none/x"], &format!("write none/x: {missing}"));
    create(&["-o", "data/x"], "write data/x: not a directory");
    create(&["-f", "-o", "."], "write .: is a directory");
    create(
        &["-f", "-o", "/dev/null"],
        "write /dev/null: not a regular file",
    );
    assert_eq!(sandbox.names(), ["data"]);
}

#[test]
fn one_output_for_several_files_is_a_usage_error() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "a").write("b", "b");
    let ended = sandbox.run(&["create", "-o", "out", "a", "b"]);
    ended.failed(
        2,
        "cascade: cannot use -o with several files; try 'cascade help'",
    );
    assert_eq!(sandbox.run(&["create"]).status, Some(2));
    assert_eq!(
        sandbox.run(&["create", "-o", "x", "-d", "y", "a"]).status,
        Some(2)
    );
    assert_eq!(sandbox.names(), ["a", "b"]);
}

#[test]
fn a_file_that_fails_does_not_keep_the_others_from_being_described() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "a").write("c", "c");
    let ended = sandbox.run(&["create", "a", "b", "c"]);
    let printed = ended.failed(1, "cascade: cannot read b: No such file or directory");
    assert_eq!(printed.lines().count(), 2);
    assert_eq!(sandbox.names(), ["a", "a.cascade", "c", "c.cascade"]);
}

#[test]
fn only_regular_files_are_described() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("directory")).expect("a directory");
    nix::unistd::mkfifo(&sandbox.path("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let directory = "it is a directory; name the files in it, or pack it into one (tar -cf)";
    for (name, reason) in [
        ("directory", directory),
        ("directory/", directory),
        ("..", directory),
        ("pipe", "not a regular file"),
        ("/dev/zero", "not a regular file"),
    ] {
        sandbox
            .run(&["create", "-o", "out", name])
            .failed(1, &format!("cascade: cannot read {name}: {reason}"));
    }
    // This one says that it is empty.
    sandbox
        .run(&["create", "-o", "out", "/proc/version"])
        .failed(
            1,
            "cascade: cannot hash /proc/version: it changed while it was read",
        );
    assert_eq!(sandbox.names(), ["directory", "pipe"]);
}

#[test]
fn an_unreadable_file_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    sandbox.write("data", "x");
    fs::set_permissions(sandbox.path("data"), fs::Permissions::from_mode(0o000)).expect("changed");
    if fs::File::open(sandbox.path("data")).is_ok() {
        eprintln!("skipped: root reads everything");
        return;
    }
    sandbox
        .run(&["create", "data"])
        .failed(1, "cascade: cannot read data: Permission denied");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let data = sandbox.sparse("data", 1 << 42);
    let child = sandbox.start(&["create", "data"]);
    wait_until_it_has_read(&child, 4 << 20);
    data.set_len(1 << 20).expect("shrunk");
    let ended: files::Ended = child.wait_with_output().expect("it ends").into();
    ended.failed(1, "cascade: cannot hash data: it changed while it was read");
    assert_eq!(sandbox.names(), ["data"]);
}

#[test]
fn a_signal_amid_the_hashing_kills_and_leaves_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let sandbox = Sandbox::new();
        sandbox.write("a", "a");
        sandbox.sparse("data", 1 << 42);
        let mut child = sandbox.start(&["create", "a", "data"]);
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("a line");
        assert!(line.ends_with("  a.cascade\n"), "{line:?}");
        wait_until_it_has_read(&child, 4 << 20);
        kill(Pid::from_raw(child.id() as i32), signal).expect("alive");
        let status = child.wait().expect("it ends");
        assert_eq!(status.signal(), Some(signal as i32));
        assert_eq!(sandbox.names(), ["a", "a.cascade", "data"]);
    }
}

#[test]
fn a_file_size_limit_leaves_no_part_of_a_file() {
    let sandbox = Sandbox::new();
    sandbox.write("data", vec![1; 100_000]);
    let script = "ulimit -f 1; exec \"$0\" create -b 64 data";
    let ended = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_cascade")])
        .current_dir(sandbox.path("."))
        .output()
        .expect("a shell");
    assert!(!ended.status.success());
    assert_eq!(sandbox.names(), ["data"]);
}

#[test]
fn a_full_disk_is_an_error_and_a_closed_output_is_none() {
    let sandbox = Sandbox::new();
    sandbox.write("data", "x");
    let full = fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("a device");
    let ended = sandbox.command(&["create", "data"]).stdout(full).output();
    files::Ended::from(ended.expect("it runs")).failed(
        1,
        "cascade: cannot write to standard output: No space left on device",
    );
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let ended = sandbox
        .command(&["create", "-f", "data"])
        .stdout(Stdio::from(writer))
        .output();
    files::Ended::from(ended.expect("it runs")).ok();
}
