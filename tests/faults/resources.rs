//! What runs out, or must not grow: descriptors, processes, memory.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::common::procfs::{self, stat, status};
use crate::common::subject::{Kind, Setup};
use crate::common::{eventually, holds_within, is_root, skip};
use crate::each_service;
use crate::trial::Trial;

each_service! {
    without_a_free_descriptor_nothing_spins_and_who_waits_is_served_afterwards
    without_a_free_process_clients_are_told_and_who_comes_afterwards_is_served
    ten_thousand_connections_leave_the_parent_as_it_was
}

/// Limits what a process may have from now on, as `--nofile=10:`.
fn limit(pid: Pid, limit: &str) {
    limit_as(&["env"], pid, limit);
}

/// The same, as the user to whom the process belongs.
fn limit_as(user: &[&str], pid: Pid, limit: &str) {
    let limited = Command::new(user[0])
        .args(&user[1..])
        .args(["prlimit", "--pid", &pid.to_string(), limit])
        .status();
    assert!(limited.expect("programs of util-linux").success());
}

fn without_a_free_descriptor_nothing_spins_and_who_waits_is_served_afterwards(kind: Kind) {
    for model in ["process", "event", "thread"] {
        let trial = Trial::of(Setup::new(kind).model(model));
        let listener = trial.listener();
        // The limit is one on numbers, of which the lowest that is free is given away next.
        let is_open = |fd: &u32| Path::new(&format!("/proc/{listener}/fd/{fd}")).exists();
        let free = (0..).find(|fd| !is_open(fd)).expect("a free one");
        limit(listener, &format!("--nofile={free}:"));
        let mut waiting = trial.subject.connect();
        waiting
            .write_all(&trial.subject.request(5))
            .expect("the system takes it");
        trial.wait_for_log("cannot accept a connection: Too many open files");
        let used = || {
            let ticks = stat(listener).map_or(0, |stat| stat.ticks);
            (
                ticks,
                status(listener, "voluntary_ctxt_switches:").unwrap_or(0),
            )
        };
        let (ticks, switches) = used();
        let begun = Instant::now();
        // Some more attempts: where it spins they take no time.
        eventually("it has tried again", || used().1 >= switches + 10);
        let (ticks, switches) = (used().0 - ticks, used().1 - switches);
        let seconds = begun.elapsed().as_secs_f64();
        // It wakes up for each attempt, and for nothing else.
        assert!(
            switches as f64 / seconds < 20.0,
            "{switches} times in {seconds} s"
        );
        assert!(
            ticks as f64 / seconds < 10.0,
            "{ticks} ticks in {seconds} s"
        );
        limit(listener, "--nofile=1024:");
        trial.subject.check_reply(&mut waiting, 5);
        drop(waiting);
        trial.survived(0);
    }
}

/// Root may have as many processes as there is room for: so the server is of a user who has none other.
fn without_a_free_process_clients_are_told_and_who_comes_afterwards_is_served(kind: Kind) {
    if !is_root() {
        return skip("needs root");
    }
    let user = (20_000 + std::process::id() % 10_000 * 4 + kind as u32).to_string();
    let ids = [
        "setpriv",
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
    ];
    let trial = Trial::of(
        Setup::new(kind)
            .under(&ids)
            .options(&["--max-connections", "50"]),
    );
    let listener = trial.listener();
    let room = 2;
    let processes = trial.baseline.len() + room;
    limit_as(&ids, listener, &format!("--nproc={processes}:"));
    let mut held: Vec<_> = (0..room).map(|_| trial.subject.connect()).collect();
    eventually("they are served", || trial.serving().len() == room);
    let before = stat(listener).map_or(0, |stat| stat.ticks);
    let begun = Instant::now();
    for _ in 0..5 {
        let mut refused = trial.subject.connect();
        refused
            .write_all(&trial.subject.request(1))
            .expect("it is half-closed at most");
        let mut reply = Vec::new();
        refused.read_to_end(&mut reply).expect("a clean end");
        if kind == Kind::Tracker {
            assert_eq!(reply[0], 1, "{reply:02x?}");
            assert!(reply.ends_with(b"\n") && reply.len() > 6, "{reply:02x?}");
        } else {
            // Nothing of these protocols is said before a request was read.
            assert!(reply.is_empty(), "{reply:02x?}");
        }
    }
    let ticks = stat(listener).map_or(0, |stat| stat.ticks) - before;
    // Two refusals a second would do; a loop that spins uses a hundred ticks in one.
    assert!(
        ticks as f64 <= 5.0 + 10.0 * begun.elapsed().as_secs_f64(),
        "{ticks} ticks"
    );
    trial.wait_for_log("cannot fork: ");
    // Those who were there are served, and when they are gone there is room.
    for stream in &mut held {
        stream
            .write_all(&trial.subject.request(2))
            .expect("the server reads");
        trial.subject.check_reply(stream, 2);
    }
    drop(held);
    eventually("they are gone", || trial.serving().is_empty());
    let lines = trial.log().matches("cannot fork: ").count();
    assert!(lines <= 3, "{lines} lines: {}", trial.log());
    trial.survived(0);
}

fn ten_thousand_connections_leave_the_parent_as_it_was(kind: Kind) {
    const ALL: usize = 10_000;
    const AT_ONCE: usize = 50;
    let trial = Trial::start(kind);
    let listener = trial.listener();
    let mut sizes = Vec::new();
    for number in 0..ALL / AT_ONCE {
        let held: Vec<_> = (0..AT_ONCE).map(|_| trial.subject.connect()).collect();
        if number == ALL / AT_ONCE - 1 {
            only_their_own(&trial, held.len());
        }
        for mut stream in held {
            stream
                .write_all(&trial.subject.request(number))
                .expect("the server reads");
            trial.subject.check_reply(&mut stream, number);
        }
        // Its own: of a tracker's peers, which lie in shared memory, there are more and more.
        sizes.push(status(listener, "RssAnon").expect("it runs"));
    }
    // What was touched once stays: from the first tenth on there is nothing new.
    let (early, late) = (sizes[sizes.len() / 10], sizes[sizes.len() - 1]);
    assert!(
        late <= early + 128,
        "{early} KiB became {late} KiB: {sizes:?}"
    );
    let counters = trial.survived(0);
    assert!(counters.all > ALL as u64, "{counters:?}");
}

/// Checks that each child has nothing but standard streams, its connection, and what the service gives to all.
#[track_caller]
fn only_their_own(trial: &Trial, children: usize) {
    eventually("all are served", || trial.serving().len() == children);
    let sockets = |pid: &Pid| {
        let links = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        links
            .filter_map(|link| std::fs::read_link(link.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    };
    // Of a tracker the socket for reports; of a peer the data file and the cascade file.
    let (own, given) = match trial.subject.kind {
        Kind::Echo => (1, 0),
        Kind::Tracker => (2, 1),
        Kind::Peer => (1, 2),
    };
    for pid in trial.serving() {
        let holds = || sockets(&pid) == own && procfs::count(pid, "fd") <= 4 + given;
        assert!(
            holds_within(Duration::from_secs(10), holds),
            "{pid} has {} descriptors, {} sockets",
            procfs::count(pid, "fd"),
            sockets(&pid)
        );
    }
}
