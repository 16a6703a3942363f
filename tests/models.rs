//! Every service under every model: the same behaviour on the wire, and nothing left behind.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use common::procfs::zombies;
use common::subject::{Kind, POOL, Subject, peer};
use common::{clients, eventually, trackers};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};

fn byte_wise_and_pipelined_requests(kind: Kind, model: &'static str) {
    let subject = Subject::start(kind, model);
    let baseline = subject.baseline();
    let mut stream = subject.connect();
    for byte in subject.request(1) {
        stream.write_all(&[byte]).expect("the server reads");
    }
    subject.check_reply(&mut stream, 1);
    if kind == Kind::Tracker {
        // One request for each connection; what follows is not for the tracker, and destroys no reply.
        let mut stream = subject.connect();
        let requests = [subject.request(2), subject.request(3)].concat();
        stream.write_all(&requests).expect("the server reads");
        subject.check_reply(&mut stream, 2);
    } else {
        let requests: Vec<u8> = (2..30).flat_map(|number| subject.request(number)).collect();
        stream.write_all(&requests).expect("the server reads");
        for number in 2..30 {
            subject.check_reply(&mut stream, number);
        }
    }
    drop(stream);
    subject.assert_back_to(&baseline);
}

fn idle_clients_beside_active_ones(kind: Kind, model: &'static str) {
    let subject = Subject::start_with(kind, model, &["-v"]);
    if subject.serves_one_after_the_other() {
        return;
    }
    let baseline = subject.baseline();
    let idle: Vec<TcpStream> = (0..3).map(|_| subject.connect()).collect();
    let mut half = subject.connect();
    let request = subject.request(1);
    half.write_all(&request[..5]).expect("the server reads");
    subject.wait_for_accepts(5);
    for number in 2..22 {
        subject.exchange(number);
    }
    half.write_all(&request[5..]).expect("the server reads");
    subject.check_reply(&mut half, 1);
    for mut stream in idle {
        stream
            .write_all(&subject.request(3))
            .expect("the server reads");
        subject.check_reply(&mut stream, 3);
    }
    drop(half);
    subject.assert_back_to(&baseline);
}

fn half_close(kind: Kind, model: &'static str) {
    let subject = Subject::start(kind, model);
    let baseline = subject.baseline();
    let mut stream = subject.connect();
    stream
        .write_all(&subject.request(1))
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .expect("the server reads");
    subject.check_reply(&mut stream, 1);
    clients::assert_closed(stream);
    let nothing = subject.connect();
    nothing.shutdown(Shutdown::Write).expect("it is connected");
    clients::assert_closed(nothing);
    subject.assert_back_to(&baseline);
}

fn resets(kind: Kind, model: &'static str) {
    let subject = Subject::start(kind, model);
    let baseline = subject.baseline();
    let request = subject.request(1);
    for sent in [0, 1, request.len() - 1, request.len()] {
        let mut stream = subject.connect();
        stream.write_all(&request[..sent]).expect("it is connected");
        let at_once = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, sockopt::Linger, &at_once).expect("an option");
        drop(stream);
        subject.exchange(2);
    }
    subject.assert_back_to(&baseline);
}

fn five_hundred_connections_in_sequence(kind: Kind, model: &'static str) {
    let subject = Subject::start(kind, model);
    let baseline = subject.baseline();
    for number in 0..500 {
        subject.exchange(number);
    }
    eventually("all have ended", || subject.inventory() == baseline);
    let Subject { server, scene, .. } = subject;
    let log = server.stop().stderr;
    // Nothing but how it began and ended: connections are not logged.
    assert!(log.lines().count() <= 2, "{log}");
    scene.assert_nothing_left();
}

fn a_hundred_connections_at_once(kind: Kind, model: &'static str) {
    let subject = Subject::start(kind, model);
    let baseline = subject.baseline();
    std::thread::scope(|scope| {
        for number in 0..100 {
            let subject = &subject;
            scope.spawn(move || subject.exchange(number));
        }
    });
    subject.assert_back_to(&baseline);
}

/// What is idle closes, what is under way is finished, and then the server ends.
fn a_term_while_busy(kind: Kind, model: &'static str) {
    let subject = Subject::start_with(kind, model, &["-v"]);
    let idle = (!subject.serves_one_after_the_other()).then(|| subject.connect());
    let mut busy = subject.connect();
    let request = subject.request(1);
    busy.write_all(&request[..5]).expect("the server reads");
    subject.wait_for_accepts(1 + usize::from(idle.is_some()));
    subject.server.process().signal(Signal::SIGTERM);
    if let Some(idle) = idle {
        clients::assert_closed(idle);
    }
    busy.write_all(&request[5..]).expect("the server reads");
    subject.check_reply(&mut busy, 1);
    drop(busy);
    let Subject { server, scene, .. } = subject;
    server.finish().assert_code(0);
    scene.assert_nothing_left();
}

/// Whoever connects after a subscriber has its reply finds the subscriber.
fn a_subscriber_is_visible_after_its_reply(model: &'static str) {
    let subject = Subject::start(Kind::Tracker, model);
    for number in 0..300 {
        // A list has at most 20 peers: so few a hash.
        let hash = [(number / 15) as u8; 32];
        let request = trackers::request(2, &hash, peer(number));
        let (status, _) = trackers::ask(subject.server.address(), &request).expect("a reply");
        assert_eq!(status, 0);
        let listed = trackers::list(subject.server.address(), &hash);
        assert!(listed.contains(&peer(number)), "{number}: {listed:?}");
    }
}

/// The state is saved soon after it changed, wherever the server works; then nothing is left of who saved it.
fn the_state_is_saved_while_the_tracker_runs(model: &'static str) {
    let subject = Subject::start_with(Kind::Tracker, model, &["--state", "peers"]);
    subject.exchange(1);
    let path = subject.scene.path("peers");
    eventually("the state is saved", || {
        fs::read_to_string(&path).is_ok_and(|state| state.contains("127.0.0.1:10001"))
    });
    eventually("whoever saved it has ended", || {
        let now = subject.inventory();
        let threads: usize = now.values().map(|(_, threads)| threads).sum();
        let pool = if model == "prethread" { POOL } else { 0 };
        let processes = subject.processes();
        now.len() == processes && threads == processes + pool && zombies(now.into_keys()).is_empty()
    });
    let Subject { server, scene, .. } = subject;
    server.stop();
    scene.assert_nothing_left();
}

#[test]
fn a_member_of_the_pool_that_dies_is_replaced() {
    let subject = Subject::start(Kind::Echo, "prefork");
    let baseline = subject.baseline();
    let server = subject.server.process().pid();
    let member = baseline.keys().find(|pid| **pid != server);
    let member = *member.expect("a pool has members");
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        // The second is gone already; a signal to nobody is no matter.
        let _ = kill(member, signal);
    }
    eventually("it is replaced", || {
        let now = subject.inventory();
        now.len() == subject.processes() && !now.contains_key(&member)
    });
    for number in 0..100 {
        subject.exchange(number);
    }
    let Subject { server, scene, .. } = subject;
    let log = server.stop().stderr;
    let line = format!("end pid {member} of the pool: signal 9 (SIGKILL)");
    assert!(log.contains(&line), "{log}");
    scene.assert_nothing_left();
}

#[test]
fn the_pool_dies_with_its_parent() {
    let subject = Subject::start(Kind::Echo, "prefork");
    let baseline = subject.baseline();
    assert_eq!(baseline.len(), 1 + POOL);
    let Subject { server, scene, .. } = subject;
    server.kill();
    scene.assert_nothing_left();
}

/// In an iterative server one slow client stalls all, and in a pool as many as it has members; nobody is lost.
#[test]
fn who_finds_all_members_busy_waits() {
    for (model, members) in [("iterative", 1), ("prethread", POOL), ("prefork", POOL)] {
        let subject = Subject::start(Kind::Echo, model);
        let busy: Vec<TcpStream> = (0..members)
            .map(|number| {
                let mut stream = subject.connect();
                stream
                    .write_all(&subject.request(number))
                    .expect("it reads");
                subject.check_reply(&mut stream, number);
                stream
            })
            .collect();
        let mut waiting = subject.connect();
        waiting.write_all(&subject.request(99)).expect("it waits");
        waiting
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("an option");
        let error = waiting.read(&mut [0]).expect_err("nobody serves it");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{model}");
        drop(busy);
        waiting
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("an option");
        subject.check_reply(&mut waiting, 99);
    }
}

crate::under_every_model! {
    a_subscriber_is_visible_after_its_reply: iterative process thread prethread event prefork;
    the_state_is_saved_while_the_tracker_runs: iterative process thread prethread event prefork;
}

crate::every_service_under_every_model! {
    byte_wise_and_pipelined_requests
    idle_clients_beside_active_ones
    half_close
    resets
    five_hundred_connections_in_sequence
    a_hundred_connections_at_once
    a_term_while_busy
}
