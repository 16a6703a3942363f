//! Signals to servers that are busy. See also tests/lifecycle.rs, which has the deadline and the second signal under
//! every model, and without load the new configuration.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::procfs::{is_listened_at, unread};
use crate::common::subject::{Kind, Setup, peer};
use crate::common::{eventually, holds_within, trackers};
use crate::crashes::large;
use crate::each_service;
use crate::trial::Trial;

each_service! {
    what_is_under_way_is_finished_after_the_listener_has_closed
}

/// Models in which a connection has a process of its own, a thread, a member of a pool, or nothing.
const MODELS: [&str; 4] = ["process", "thread", "prefork", "event"];

/// Nobody waits for that.
const AGES: &str = "1h";

fn patient(kind: Kind, model: &'static str, grace: &str) -> Trial {
    let options = [
        "--grace",
        grace,
        "--request-timeout",
        AGES,
        "--send-timeout",
        AGES,
    ];
    Trial::of(
        Setup::new(kind)
            .model(model)
            .sample(large())
            .options(&options),
    )
}

/// A connection that is not idle: in the middle of a request, and of a peer in the middle of a response.
fn busy(trial: &Trial) -> TcpStream {
    let mut stream = trial.subject.connect();
    let request = trial.subject.request(1);
    if trial.subject.kind == Kind::Peer {
        stream.write_all(&request).expect("the server reads");
        // The response has begun: peeked at, so that it can be read from its beginning.
        assert_eq!(stream.peek(&mut [0]).expect("a response"), 1);
    } else {
        stream.write_all(&request[..5]).expect("the server reads");
        trial.subject.wait_for_accepts(2);
        // A thread or a loop may have accepted it and not read yet.
        let (server, client) = (stream.peer_addr(), stream.local_addr());
        let ports = [server, client].map(|address| address.expect("it is connected").port());
        eventually("it is read", || unread(ports) == Some(0));
    }
    stream
}

#[track_caller]
fn ask_to_stop(trial: &Trial) {
    trial.subject.server.process().signal(Signal::SIGTERM);
    let port = trial.subject.server.address().port();
    eventually("the listener is closed", || !is_listened_at(port));
}

fn what_is_under_way_is_finished_after_the_listener_has_closed(kind: Kind) {
    for model in MODELS {
        let trial = patient(kind, model, AGES);
        let mut stream = busy(&trial);
        ask_to_stop(&trial);
        if kind != Kind::Peer {
            let request = trial.subject.request(1);
            stream.write_all(&request[5..]).expect("the server reads");
        }
        trial.subject.check_reply(&mut stream, 1);
        drop(stream);
        let counters = Trial::ended(trial.subject);
        assert_eq!(counters.of("done"), 2, "{model}: {}", counters.log);
    }
}

#[test]
fn a_broken_configuration_changes_nothing_for_a_tracker_and_loses_no_connection() {
    let hash = "07".repeat(32);
    let right = format!("{{\"port\": 1, \"allowedhashes\": [\"{hash}\"]}}");
    let setup = Setup::new(Kind::Tracker).file("config", &right);
    let trial = Trial::of(setup.options(&["--config", "config"]));
    let broken = [
        "{",
        "{\"port\": \"many\"}",
        "{\"allowedhashes\": [\"07\"]}",
        "{\"good-ips\": [\"nowhere\"]}",
    ];
    under_load_read_again(&trial, "config", &broken);
    // The old one is in force: another hash is refused.
    let other = trackers::request(1, &[8; 32], peer(1));
    let (status, _) = trackers::ask(trial.subject.server.address(), &other).expect("an answer");
    assert_ne!(status, 0);
    let counters = trial.survived(0);
    assert_eq!(counters.of("refused"), 1, "{}", counters.log);
    assert_eq!(counters.of("done") + 1, counters.all, "{}", counters.log);
}

#[test]
fn a_broken_list_of_files_changes_nothing_for_a_peer_and_loses_no_connection() {
    let options = ["-d", ".", "--watch-dir"];
    let trial = Trial::of(Setup::new(Kind::Peer).options(&options));
    under_load_read_again(
        &trial,
        "broken.cascade",
        &["", "CASCADE1", "no cascade file at all"],
    );
    let counters = trial.survived(0);
    assert_eq!(counters.of("done"), counters.all, "{}", counters.log);
}

/// While clients are served without a pause, the server is asked again and again to read a file that is broken, in one
/// way after the other. Each client gets its reply.
#[track_caller]
fn under_load_read_again(trial: &Trial, name: &str, broken: &[&str]) {
    let server = trial.subject.server.process();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = || {
            let numbers = (0..).take_while(|_| !done.load(Ordering::Relaxed));
            numbers.for_each(|number| trial.subject.exchange(number));
        };
        let clients = [(); 3].map(|()| scope.spawn(load));
        for (count, text) in broken.iter().cycle().take(10).enumerate() {
            fs::write(trial.subject.scene.path(name), text).expect("our own file");
            server.signal(Signal::SIGHUP);
            let complains = || trial.log().matches(&format!("{name}: ")).count() > count;
            // A client that was not served has ended its thread.
            let complained = holds_within(Duration::from_secs(20), complains);
            done.store(!complained, Ordering::Relaxed);
            assert!(complained, "it says what is wrong: {}", trial.log());
        }
        done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("each was served");
        }
    });
    fs::remove_file(trial.subject.scene.path(name)).expect("our own file");
}

/// A child that takes no signal and does nothing.
#[cfg(feature = "faults")]
mod on_demand {
    use super::*;

    each_service! {
        a_child_that_is_stuck_is_killed_at_the_deadline
    }

    fn a_child_that_is_stuck_is_killed_at_the_deadline(kind: Kind) {
        let setup = Setup::new(kind).env("CASCADE_FAULT", "input=hang");
        let trial = Trial::of(setup.options(&["--grace", "1"]));
        let mut stuck = trial.subject.connect();
        stuck.write_all(b"FAULT!").expect("the server reads");
        let child = trial.child_of(&stuck);
        ask_to_stop(&trial);
        let counters = Trial::ended(trial.subject);
        assert_eq!(counters.all, 2, "{}", counters.log);
        let line = format!("end pid {child} of ");
        let line = counters.log.lines().find(|at| at.contains(&line));
        assert!(
            line.is_some_and(|line| line.contains("signal 9 (SIGKILL)")),
            "{}",
            counters.log
        );
    }
}
