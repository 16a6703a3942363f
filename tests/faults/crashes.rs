//! Processes that die: one that serves a connection, two hundred of them, all of them with their parent.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};

use crate::common::process::Server;
use crate::common::procfs::zombies;
use crate::common::sample::Sample;
use crate::common::scene::Scene;
use crate::common::subject::{Kind, Setup};
use crate::common::{eventually, holds_within};
use crate::each_service;
use crate::trial::Trial;

each_service! {
    a_child_that_is_killed_is_logged_and_disturbs_no_other
    two_hundred_children_that_end_at_once_are_all_reaped
    all_end_with_the_parent_and_the_port_is_free_at_once
}

/// Blocks that fill every buffer on the way, so that a response is under way for as long as nobody reads it.
pub fn large() -> Sample {
    Sample::new("data", 2 * (12 << 20), 12 << 20)
}

/// A connection in the middle of its request; a peer's in the middle of its response.
fn under_way(trial: &Trial, number: usize) -> TcpStream {
    let mut stream = trial.subject.connect();
    let request = trial.subject.request(number);
    let sent = match trial.subject.kind {
        Kind::Peer => request.len(),
        _ => request.len() - 1,
    };
    stream
        .write_all(&request[..sent])
        .expect("the server reads");
    stream
}

/// Brings it to its end.
#[track_caller]
fn finish(trial: &Trial, mut stream: TcpStream, number: usize) {
    let request = trial.subject.request(number);
    if trial.subject.kind != Kind::Peer {
        stream
            .write_all(&request[request.len() - 1..])
            .expect("the server reads");
    }
    trial.subject.check_reply(&mut stream, number);
}

fn a_child_that_is_killed_is_logged_and_disturbs_no_other(kind: Kind) {
    let trial = Trial::of(Setup::new(kind).sample(large()));
    let others: Vec<_> = (0..3).map(|number| under_way(&trial, number)).collect();
    let mut victim = under_way(&trial, 3);
    let child = trial.child_of(&victim);
    eventually("all are served", || trial.serving().len() == 4);
    kill(child, Signal::SIGKILL).expect("it runs");
    let mut rest = Vec::new();
    // An end or a reset: in any case an end, and no right response.
    let _ = victim.read_to_end(&mut rest);
    trial.wait_for_log(&format!("end pid {child} of "));
    let log = trial.log();
    let line = log
        .lines()
        .find(|line| line.contains(&format!("end pid {child} of ")));
    assert!(
        line.is_some_and(|line| line.ends_with(": signal 9 (SIGKILL)")),
        "{log}"
    );
    for (number, other) in others.into_iter().enumerate() {
        finish(&trial, other, number);
    }
    trial.survived(1);
}

fn two_hundred_children_that_end_at_once_are_all_reaped(kind: Kind) {
    const MANY: usize = 200;
    let trial = Trial::start(kind);
    let connections: Vec<_> = (0..MANY).map(|_| trial.subject.connect()).collect();
    eventually("all are served", || trial.serving().len() == MANY);
    // While the parent stands still all signals of its children become one.
    trial.freeze();
    drop(connections);
    let listener = trial.listener();
    eventually("all have ended", || zombies([listener]).len() == MANY);
    trial.thaw();
    let counters = trial.survived(0);
    assert!(counters.all >= MANY as u64, "{counters:?}");
}

fn all_end_with_the_parent_and_the_port_is_free_at_once(kind: Kind) {
    let trial = Trial::start(kind);
    let address = trial.subject.server.address();
    let mut connections: Vec<_> = (0..20).map(|_| trial.subject.connect()).collect();
    eventually("all are served", || {
        trial.serving().len() == connections.len()
    });
    let subject = trial.subject;
    subject.server.kill();
    let killed = Instant::now();
    // At once: whoever looks after a server starts it again as soon as it has ended. The address was in use a moment
    // ago, its connections are not over, and its children may not have got to their end.
    let successor = Setup::new(subject.kind)
        .listen(&address.to_string())
        .serve();
    assert_eq!(successor.server.address(), address);
    let second = Duration::from_secs(1).saturating_sub(killed.elapsed());
    let scene = subject.scene;
    let gone = holds_within(second, || scene.left().is_empty());
    assert!(gone, "left: {:?}", scene.left());
    successor.exchange(1);
    for stream in &mut connections {
        assert!(
            matches!(stream.read(&mut [0]), Ok(0) | Err(_)),
            "nobody serves it"
        );
    }
}

/// What was killed may hold the port for a moment longer.
#[test]
fn a_port_that_is_free_a_moment_later_is_waited_for() {
    let scene = Scene::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = holder.local_addr().expect("it has an address");
    let echo = scene.cascade("echo").args(["serve", "-l"]);
    let mut process = echo.arg(address.to_string()).start();
    let ended = holds_within(Duration::from_millis(300), || process.ended().is_some());
    assert!(!ended, "{}", process.stderr());
    drop(holder);
    Server::new(process).stop();
}

/// A client goes before its connection was accepted.
pub fn reset(stream: TcpStream) {
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &at_once).expect("an option");
}

/// Crashes on demand are not in what is shipped.
#[cfg(feature = "faults")]
mod on_demand {
    use std::net::Shutdown;

    use super::*;
    use crate::common::procfs::stat;
    use crate::common::subject::POOL;

    each_service! {
        a_child_of_which_the_program_is_wrong_is_logged_as_a_crash
        a_panic_ends_nothing_but_the_child
        a_panic_ends_nothing_but_its_connection_under_every_other_model
        a_child_that_ends_before_it_is_recorded_is_counted
        a_child_that_does_not_stop_is_ended_by_its_alarm
    }

    const REQUEST: &[u8] = b"FAULT!";

    fn faulty(kind: Kind, fault: &str) -> Setup {
        Setup::new(kind).env("CASCADE_FAULT", fault)
    }

    /// Asks for a fault, and waits for the end of the connection.
    fn crash(trial: &Trial) {
        let mut stream = trial.subject.connect();
        stream.write_all(REQUEST).expect("the server reads");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{rest:02x?}");
    }

    fn a_child_of_which_the_program_is_wrong_is_logged_as_a_crash(kind: Kind) {
        for (deed, signal) in [("segv", Signal::SIGSEGV), ("abort", Signal::SIGABRT)] {
            let fault = format!("input={deed}");
            // One place is the other's: all who crash have the same.
            let places = ["--max-connections", "2"];
            let trial = Trial::of(faulty(kind, &fault).options(&places));
            let other = under_way(&trial, 1);
            for _ in 0..3 {
                crash(&trial);
            }
            trial.wait_for_log(&format!(": signal {} ({signal})", signal as i32));
            finish(&trial, other, 1);
            trial.survived(3);
        }
    }

    /// It waits for nothing, so that no deadline of its own is looked at.
    fn a_child_that_does_not_stop_is_ended_by_its_alarm(kind: Kind) {
        let setup = faulty(kind, "input=spin").options(&["--max-lifetime", "1"]);
        let trial = Trial::of(setup);
        crash(&trial);
        trial.wait_for_log(": signal 14 (SIGALRM)");
        trial.survived(0);
    }

    fn a_panic_ends_nothing_but_the_child(kind: Kind) {
        let trial = Trial::of(faulty(kind, "input=panic,witness=drop"));
        let other = under_way(&trial, 1);
        let mut stream = trial.subject.connect();
        let child = trial.child_of(&stream);
        // The parent must not reap it before it was looked at.
        trial.freeze();
        stream.write_all(REQUEST).expect("the server reads");
        let zombie = || stat(child).filter(|stat| stat.state == 'Z');
        eventually("it ends", || zombie().is_some());
        let status = zombie().map(|stat| stat.exit);
        assert_eq!(status, Some(70 << 8), "what wait(2) says of exit status 70");
        trial.thaw();
        finish(&trial, other, 1);
        let server = trial.listener();
        let after = trial.survived(1);
        assert!(after.log.contains(&format!("end pid {child} of ")));
        let panics = after.log.matches("a fault on demand").count();
        assert_eq!(panics, 1, "said once: {}", after.log);
        let dropped = after.log.lines().filter(|line| line.contains(" drops "));
        let dropped: Vec<&str> = dropped.collect();
        assert_eq!(dropped, [format!("pid {server} drops the loop")]);
    }

    fn a_panic_ends_nothing_but_its_connection_under_every_other_model(kind: Kind) {
        for model in ["prefork", "thread", "prethread", "event", "iterative"] {
            let trial = Trial::of(faulty(kind, "input=panic").model(model));
            let other = (model != "iterative").then(|| {
                let mut other = trial.subject.connect();
                let request = trial.subject.request(1);
                other.write_all(&request[..5]).expect("the server reads");
                other
            });
            // As many as leave a member of the pool for the other.
            for _ in 1..POOL {
                crash(&trial);
            }
            if let Some(mut other) = other {
                let request = trial.subject.request(1);
                other.write_all(&request[5..]).expect("the server reads");
                trial.subject.check_reply(&mut other, 1);
            }
            trial.survived(POOL as u64 - 1);
        }
    }

    fn a_child_that_ends_before_it_is_recorded_is_counted(kind: Kind) {
        let trial = Trial::of(faulty(kind, "recording=late"));
        for number in 0..20 {
            let mut stream = trial.subject.connect();
            stream
                .write_all(&trial.subject.request(number))
                .and_then(|()| stream.shutdown(Shutdown::Write))
                .expect("the server reads");
            trial.subject.check_reply(&mut stream, number);
        }
        trial.survived(0);
    }
}
