//! What the program is started with: signals that are ignored or blocked, limits, and being the first process of a
//! container.

mod common;

use std::fs;
use std::time::Duration;

use common::process::{Process, Server};
use common::sample::Sample;
use common::scene::{Invocation, Scene};
use common::{eventually, is_root, procfs, skip};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cascade");

/// A command, started by something that ignores and blocks signals.
fn hardened<'a>(scene: &'a Scene, arguments: &[&str]) -> Invocation<'a> {
    let env = scene.program("env");
    let env = env.args(["--ignore-signal=CHLD,PIPE", "--block-signal", PROGRAM]);
    env.args(arguments)
}

fn sample(scene: &Scene) -> Sample {
    let sample = Sample::new("data", 100_000, 1000);
    sample.write_cascade(&scene.path(""));
    sample
}

#[test]
fn ignored_and_blocked_signals_keep_nobody_from_learning_that_a_child_ended() {
    let scene = Scene::new();
    let sample = sample(&scene);
    sample.write_data(&scene.path(""));
    let here = ["-l", "127.0.0.1:0"];
    let tracker = hardened(&scene, &["tracker", here[0], here[1], "data.cascade"]).serve();
    let at = tracker.address().to_string();
    let peer = ["peer", here[0], here[1], "-t", &at, "data.cascade"];
    let peer = hardened(&scene, &peer).serve();
    let from = peer.address().to_string();
    let get = ["get", "-p", &from, "-o", "copy", "data.cascade"];
    let done = hardened(&scene, &get).run().assert_code(0);
    done.assert_within(Duration::from_secs(30));
    sample.assert_complete(&scene.path("copy"));
    let list = ["list", "-t", &at, "data.cascade"];
    hardened(&scene, &list).run().assert_code(0);
    let left = |server: &Server| procfs::zombies([server.process().pid()]).len();
    eventually("all that ended were reaped", || {
        left(&tracker) + left(&peer) == 0
    });
    peer.stop();
    tracker.stop();
    let share = [
        "share",
        here[0],
        here[1],
        "--tracker-listen",
        here[1],
        "data",
    ];
    let share = hardened(&scene, &share).start();
    eventually("the line is printed", || {
        share.stdout().contains("cascade get")
    });
    share.signal(Signal::SIGTERM);
    share.finish().assert_code(0);
}

#[test]
fn user_command_begins_as_this_program_did() {
    let scene = Scene::new();
    sample(&scene).write_data(&scene.path(""));
    let look = "ulimit -Sn >limit; umask >mask; grep -E 'NoNewPrivs|SigBlk|SigIgn' /proc/self/status >seen";
    // Standard input is another one, and nothing else.
    fs::write(scene.path("look"), look).expect("a script");
    let as_started = |command: &[&str]| {
        let prlimit = scene
            .program("prlimit")
            .args(["--nofile=1000:4000", "sh", "-c"]);
        let prlimit = prlimit.arg("umask 027; exec \"$@\"").arg("sh");
        let prlimit = prlimit.args(["env", "--ignore-signal=CHLD,PIPE,USR2"]);
        prlimit
            .arg("--block-signal=WINCH")
            .args(command)
            .run()
            .assert_code(0);
        ["limit", "mask", "seen"].map(|name| {
            let path = scene.path(name);
            let text = fs::read_to_string(&path).expect("it was written");
            fs::remove_file(path).expect("it is there");
            text
        })
    };
    let expected = as_started(&["sh", "look"]);
    assert_eq!(expected[0], "1000\n");
    let get = [
        PROGRAM,
        "get",
        "-p",
        "127.0.0.1:1",
        "--exec",
        "sh look",
        "data.cascade",
    ];
    assert_eq!(as_started(&get), expected);
}

/// Starts a command as the first process of a container.
fn first<'a>(scene: &'a Scene, arguments: &[&str]) -> Invocation<'a> {
    let unshare = scene.program("unshare");
    let unshare = unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    unshare.arg(PROGRAM).args(arguments)
}

/// The first process of the container that this one made.
fn first_of(unshare: &Process) -> Pid {
    let mut children = Vec::new();
    eventually("it begins", || {
        children = procfs::children(unshare.pid());
        !children.is_empty()
    });
    children[0]
}

#[test]
fn each_command_ends_at_int_and_term_as_the_first_process_of_a_container() {
    if !is_root() {
        return skip("only root can make a container");
    }
    let scene = Scene::new();
    let sample = sample(&scene);
    sample.write_data(&scene.path(""));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("it is bound").to_string();
    let huge = fs::File::create(scene.path("huge")).expect("a file");
    huge.set_len(1 << 40).expect("nothing is written");
    let here = "127.0.0.1:0";
    for arguments in [
        &["tracker", "-l", here, "data.cascade"][..],
        &["peer", "-l", here, "data.cascade"],
        &["echo", "serve", "-l", here],
        &["get", "-p", &silent, "-o", "copy", "data.cascade"],
        &["share", "-l", here, "--tracker-listen", here, "data"],
        &["list", "-t", &silent, "data.cascade"],
        &["create", "-b", "1GiB", "huge"],
        &["compare", "--duration", "30"],
    ] {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let process = first(&scene, arguments).start();
            let init = first_of(&process);
            // The program itself is a child of it, and waits for something.
            eventually(&format!("{arguments:?} is at work"), || {
                let children = procfs::children(init);
                children
                    .first()
                    .is_some_and(|pid| procfs::stat(*pid).is_some_and(|stat| stat.state == 'S'))
            });
            nix::sys::signal::kill(init, signal).expect("it runs");
            let ended = process.finish_within(Duration::from_secs(15));
            assert!(
                ended.status.code().is_some(),
                "{arguments:?} {signal}: {ended:#?}"
            );
        }
    }
}

#[test]
fn orphans_are_reaped_by_the_first_process_of_a_container() {
    if !is_root() {
        return skip("only root can make a container");
    }
    let scene = Scene::new();
    sample(&scene).write_data(&scene.path(""));
    // The command leaves a process behind, which ends later.
    let leaves = "(sleep 0.2; touch gone) >&- 2>&- & sleep 0.05; exit 0";
    let get = [
        "get",
        "-p",
        "127.0.0.1:1",
        "-l",
        "127.0.0.1:0",
        "--seed-for",
        "1h",
        "--exec",
        leaves,
        "data.cascade",
    ];
    let process = first(&scene, &get).start();
    let init = first_of(&process);
    eventually("the orphan has ended", || scene.path("gone").exists());
    eventually("it was reaped", || {
        procfs::children(init).len() == 1 && procfs::zombies([init]).is_empty()
    });
    nix::sys::signal::kill(init, Signal::SIGTERM).expect("it runs");
    process.finish_within(Duration::from_secs(15));
}
