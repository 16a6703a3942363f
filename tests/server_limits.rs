//! What a server grants its clients: the same for every service under every model.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use common::eventually;
use common::subject::{Kind, POOL, Subject};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use nix::unistd::Pid;

/// No deadline of these tests is as far away.
const AGES: Duration = Duration::from_secs(15);

/// Reads until the connection ends, however that is; answers how long it lasted since `begun`.
#[track_caller]
fn end_of(mut stream: &TcpStream, begun: Instant) -> Duration {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(1..) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it does not end"),
            Ok(0) | Err(_) => return begun.elapsed(),
        }
    }
}

#[track_caller]
fn assert_between(took: Duration, least: Duration, most: Duration) {
    assert!(took >= least && took < most, "after {took:?}");
}

fn a_silent_client_is_closed_at_the_idle_timeout(kind: Kind, model: &'static str) {
    let subject = Subject::start_with(kind, model, &["-v", "--idle-timeout", "400ms"]);
    let begun = Instant::now();
    let silent = subject.connect();
    let took = end_of(&silent, begun);
    assert_between(took, Duration::from_millis(380), AGES);
    // Its place is free again.
    subject.exchange(1);
    assert!(subject.stop().starts_with("2 connections: done 2"));
}

/// The deadline is that of the whole request: it does not move with every byte.
fn a_request_that_comes_byte_by_byte_is_cut_off(kind: Kind, model: &'static str) {
    let subject = Subject::start_with(kind, model, &["-v", "--request-timeout", "500ms"]);
    let (slow, request) = (subject.connect(), subject.request(1));
    let begun = Instant::now();
    // Each byte is sent when nothing came after the one before for so long.
    let pace = Some(Duration::from_millis(60));
    slow.set_read_timeout(pace).expect("a timeout");
    let (mut bytes, last) = (request[..request.len() - 1].iter(), Some(AGES));
    let took = loop {
        match bytes.next() {
            Some(byte) => _ = (&slow).write_all(&[*byte]),
            None => slow.set_read_timeout(last).expect("a timeout"),
        }
        match (&slow).read(&mut [0; 4096]) {
            Ok(1..) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(begun.elapsed() < AGES, "it does not end");
            }
            Ok(0) | Err(_) => break begun.elapsed(),
        }
    };
    assert_between(took, Duration::from_millis(480), AGES);
    let tally = subject.stop();
    assert!(tally.contains("timed out 1"), "{tally}");
}

/// A client that asks and asks and reads nothing.
fn a_client_that_takes_nothing_is_cut_off(kind: Kind, model: &'static str) {
    if kind == Kind::Tracker {
        // It has one short reply for each connection, which the system takes in any case.
        return;
    }
    let subject = Subject::start_with(kind, model, &["-v", "--send-timeout", "500ms"]);
    let greedy = subject.connect();
    let begun = Instant::now();
    let request = match kind {
        Kind::Echo => [vec![b'x'; 8000], vec![b'\n']].concat(),
        _ => subject.request(1),
    };
    // The server stops reading where it cannot send, and then closes: this write ends either way.
    greedy
        .set_write_timeout(Some(AGES))
        .expect("a socket takes options");
    let ended = loop {
        if let Err(error) = (&greedy).write_all(&request) {
            break error;
        }
        assert!(begun.elapsed() < AGES, "it is not cut off");
    };
    assert!(ended.kind() != ErrorKind::WouldBlock, "{ended}");
    assert!(begun.elapsed() >= Duration::from_millis(480));
    let tally = subject.stop();
    assert!(tally.contains("timed out 1"), "{tally}");
}

fn a_connection_lasts_so_long_at_most(kind: Kind, model: &'static str) {
    let patient = ["--idle-timeout", "1h", "--request-timeout", "1h"];
    let options = [&["-v", "--max-lifetime", "700ms"][..], &patient].concat();
    let subject = Subject::start_with(kind, model, &options);
    let begun = Instant::now();
    let silent = subject.connect();
    let took = end_of(&silent, begun);
    assert_between(took, Duration::from_millis(680), AGES);
    let mut busy = subject.connect();
    let begun = Instant::now();
    if kind == Kind::Tracker {
        // It answers once for each connection: this one takes its time.
        busy.write_all(b"CASC").expect("the server reads");
    } else {
        // One that is never idle when the time is over.
        while begun.elapsed() < AGES && busy.write_all(&subject.request(1)).is_ok() {
            let mut reply = [0; 1 << 16];
            if !matches!(busy.read(&mut reply), Ok(1..)) {
                break;
            }
        }
    }
    let took = end_of(&busy, begun);
    assert_between(took, Duration::from_millis(680), AGES);
    subject.stop();
}

/// At the limit newcomers wait, and are served when there is room.
fn so_many_connections_are_served_at_once(kind: Kind, model: &'static str) {
    let options = ["-v", "--max-connections", "2", "--idle-timeout", "1h"];
    let subject = Subject::start_with(kind, model, &options);
    let most = if subject.serves_one_after_the_other() {
        1
    } else {
        2
    };
    let held: Vec<TcpStream> = (0..most).map(|_| subject.connect()).collect();
    subject.wait_for_accepts(most);
    let mut waiting = subject.connect();
    waiting
        .write_all(&subject.request(1))
        .expect("it is connected");
    waiting
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a socket takes options");
    let error = waiting.read(&mut [0]).expect_err("nobody serves it");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    waiting
        .set_read_timeout(Some(AGES))
        .expect("a socket takes options");
    drop(held);
    subject.check_reply(&mut waiting, 1);
    drop(waiting);
    subject.stop();
}

/// Whoever finds the backlog full is not connected.
#[test]
fn so_many_connections_wait() {
    let options = ["-v", "--max-connections", "1", "--backlog", "1"];
    let subject = Subject::start_with(Kind::Echo, "process", &options);
    let _held = subject.connect();
    subject.wait_for_accepts(1);
    // Linux lets one more wait than it was told.
    let _waiting: Vec<TcpStream> = (0..2).map(|_| subject.connect()).collect();
    let late = TcpStream::connect_timeout(&subject.server.address(), Duration::from_millis(500));
    assert_eq!(late.expect_err("no room").kind(), ErrorKind::TimedOut);
}

/// The alarm gets through to a child at any time, and what it ends has timed out.
#[test]
fn a_child_that_does_not_end_by_itself_is_ended() {
    let subject = Subject::start_with(Kind::Echo, "process", &["-v", "--max-lifetime", "1"]);
    let server = subject.server.process().pid();
    let mut client = subject.connect();
    client.write_all(b"line\n").expect("the server reads");
    subject.wait_for_accepts(1);
    let child = subject.scene.left().into_iter().find(|pid| *pid != server);
    let child = child.expect("a child serves");
    // It cannot end by itself while it is stopped, nor die of the alarm; then it does at once.
    kill(child, Signal::SIGSTOP).expect("it runs");
    let stopped = Instant::now();
    eventually("the alarm has come", || pending_alarm(child));
    assert!(stopped.elapsed() < AGES);
    kill(child, Signal::SIGCONT).expect("it is there");
    end_of(&client, stopped);
    eventually("its end is logged", || {
        let log = subject.server.process().stderr();
        log.contains(&format!("end pid {child} of ")) && log.contains("signal 14 (SIGALRM)")
    });
    assert_eq!(subject.stop(), "1 connection: timed out 1");
}

/// Whether SIGALRM waits for a process.
fn pending_alarm(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().filter_map(|line| {
        let bits = line
            .strip_prefix("ShdPnd:")
            .or(line.strip_prefix("SigPnd:"))?;
        u64::from_str_radix(bits.trim(), 16).ok()
    });
    pending.fold(0, |all, bits| all | bits) & (1 << (Signal::SIGALRM as u64 - 1)) != 0
}

/// Gives this thread, and the processes that it starts, a network of its own with these addresses; not without root.
fn in_a_network_with(addresses: &[&str]) -> bool {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: this needs a network namespace: {error}");
        return false;
    }
    let ip = |arguments: &[&str]| {
        let status = Command::new("ip").args(arguments).status();
        assert!(status.expect("ip(8) is there").success(), "{arguments:?}");
    };
    ip(&["link", "set", "lo", "up"]);
    for address in addresses {
        let mut add = vec!["addr", "add", *address, "dev", "lo"];
        if address.contains(':') {
            // Otherwise nobody can bind to it until the system has got round to making sure that it is nobody else's.
            add.push("nodad");
        }
        ip(&add);
    }
    true
}

/// A connection from one address of this machine to another.
#[track_caller]
fn connect_from(source: &str, server: &str, port: u16) -> TcpStream {
    let [source, server] = [source, server].map(|ip| ip.parse().expect("an address"));
    let family = match source {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let [source, server] = [(source, 0), (server, port)].map(SocketAddr::from);
    bind(fd.as_raw_fd(), &SockaddrStorage::from(source)).expect("an address of ours");
    connect(fd.as_raw_fd(), &SockaddrStorage::from(server)).expect("it listens");
    let stream = TcpStream::from(fd);
    stream
        .set_read_timeout(Some(AGES))
        .expect("a socket takes options");
    stream
}

/// Checks that a connection was turned away: its client sees a clean end, though it asks, and is told why where the
/// protocol has words for it.
#[track_caller]
fn assert_turned_away(subject: &Subject, mut stream: TcpStream) {
    stream
        .write_all(&subject.request(1))
        .expect("it is half-closed at most");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).expect("a clean end");
    match subject.kind {
        Kind::Tracker => {
            let message = String::from_utf8_lossy(&reply[5..]);
            assert_eq!((reply[0], reply[4] as usize), (1, message.len()));
            assert!(message.contains("no room"), "{message}");
        }
        Kind::Echo | Kind::Peer => assert_eq!(reply, b""),
    }
}

/// Of a flood from one address so many are served as one may have, and another address is served all the same.
fn one_address_has_so_many_connections(kind: Kind, model: &'static str) {
    const LIMIT: usize = 3;
    const FLOOD: usize = 40;
    let addresses = [
        "192.0.2.1/32",
        "192.0.2.2/32",
        "2001:db8:1::1/64",
        "2001:db8:1::2/64",
        "2001:db8:2::1/64",
    ];
    if !in_a_network_with(&addresses) {
        return;
    }
    let options = ["-v", "--max-per-address", "3", "--idle-timeout", "1h"];
    let subject = Subject::start_at("0", kind, model, &options);
    if subject.serves_one_after_the_other() {
        // It never has more than one.
        return;
    }
    let port = subject.server.address().port();
    eventually("it listens for IPv6, too", || {
        subject.server.addresses().len() == 2
    });
    let held: Vec<TcpStream> = (0..LIMIT)
        .map(|_| connect_from("192.0.2.1", "192.0.2.1", port))
        .collect();
    subject.wait_for_accepts(LIMIT);
    for _ in 0..FLOOD {
        let stream = connect_from("192.0.2.1", "192.0.2.1", port);
        assert_turned_away(&subject, stream);
    }
    let serves = |source: &str, server: &str, number: usize| {
        let mut stream = connect_from(source, server, port);
        let request = subject.request(number);
        stream.write_all(&request).expect("the server reads");
        subject.check_reply(&mut stream, number);
        stream
    };
    serves("192.0.2.2", "192.0.2.1", 4);
    // Those who were there are served, too.
    for (number, mut stream) in held.into_iter().enumerate() {
        let request = subject.request(number);
        stream.write_all(&request).expect("the server reads");
        subject.check_reply(&mut stream, number);
    }
    // Their places are free again.
    eventually("their places are free", || {
        let mut stream = connect_from("192.0.2.1", "192.0.2.1", port);
        let mut first = [0];
        stream.write_all(&subject.request(5)).is_ok()
            && stream.read(&mut first).is_ok_and(|n| n == 1)
            && (kind != Kind::Tracker || first == [0])
    });
    // An IPv6 network is one address. The pool has room for all of these.
    const { assert!(2 * LIMIT < POOL) };
    let one = "2001:db8:1::1";
    let held: Vec<TcpStream> = [one, one, "2001:db8:1::2"]
        .map(|source| connect_from(source, one, port))
        .into();
    eventually("the network has as many as it may", || {
        let stream = connect_from("2001:db8:1::2", one, port);
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a socket takes options");
        (&stream).read(&mut [0; 64]).is_ok()
    });
    serves("2001:db8:2::1", one, 6);
    drop(held);
    // The machine itself is exempt.
    let own: Vec<TcpStream> = (0..LIMIT + 2)
        .map(|_| connect_from("127.0.0.1", "127.0.0.1", port))
        .collect();
    for (number, mut stream) in own.into_iter().enumerate() {
        let request = subject.request(number);
        stream.write_all(&request).expect("the server reads");
        subject.check_reply(&mut stream, number);
    }
    let Subject { server, scene, .. } = subject;
    let log = server.stop().stderr;
    let lines = log.lines().filter(|line| line.contains(" away: ")).count();
    assert!((1..=4).contains(&lines), "{log}");
    assert!(log.contains("its address has 3 connections already"));
    assert!(log.contains(" turned away"), "{log}");
    scene.assert_nothing_left();
}

crate::every_service_under_every_model! {
    a_silent_client_is_closed_at_the_idle_timeout
    a_request_that_comes_byte_by_byte_is_cut_off
    a_client_that_takes_nothing_is_cut_off
    a_connection_lasts_so_long_at_most
    so_many_connections_are_served_at_once
    one_address_has_so_many_connections
}
