//! Clients whose network is gone: no end, no reset, no answer comes from them any more.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::common::network::Network;
use crate::common::subject::{Kind, Setup};
use crate::common::{clients, eventually, skip};
use crate::crashes::large;
use crate::each_service;
use crate::trial::Trial;

each_service! {
    a_client_whose_network_is_gone_is_closed_within_the_configured_time
}

/// What the server waits for; and the system a little longer.
const DEADLINE: Duration = Duration::from_secs(2);

fn a_client_whose_network_is_gone_is_closed_within_the_configured_time(kind: Kind) {
    let Some((here, there)) = Network::new().zip(Network::new()) else {
        return skip("needs root");
    };
    here.join("10.8.0.1/24", &there, "10.8.0.2/24");
    let options = [
        "--idle-timeout",
        "2",
        "--request-timeout",
        "2",
        "--send-timeout",
        "2",
    ];
    let trial = here.run(move || {
        let setup = Setup::new(kind).listen("10.8.0.1:0").sample(large());
        Trial::of(setup.options(&options))
    });
    let address = trial.subject.server.address();
    let connect = || there.run(move || clients::connect(address));
    // One is silent, one in the middle of a request, and one, of a peer, in the middle of a response.
    let request = trial.subject.request(1);
    let silent = connect();
    let mut half = connect();
    half.write_all(&request[..5]).expect("the server reads");
    let mut reader = connect();
    if kind == Kind::Peer {
        reader.write_all(&request).expect("the server reads");
        reader
            .read_exact(&mut [0; 1000])
            .expect("a response begins");
    }
    eventually("all are served", || trial.serving().len() == 3);
    let begun = Instant::now();
    there.cut();
    eventually("nobody is served any more", || trial.serving().is_empty());
    assert!(begun.elapsed() < 5 * DEADLINE, "{:?}", begun.elapsed());
    // Nor does the system keep for long what the server gave up.
    let listener = trial.listener();
    eventually("no connection is left", || connections(listener) == 0);
    assert!(begun.elapsed() < 10 * DEADLINE, "{:?}", begun.elapsed());
    assert_still_open(&[silent, half, reader]);
    // Another network comes.
    there.ip("addr add 10.8.0.3/24 dev cable");
    let mut fresh = there.run(move || clients::connect(address));
    fresh
        .write_all(&trial.subject.request(2))
        .expect("the server reads");
    trial.subject.check_reply(&mut fresh, 2);
    drop(fresh);
    // What follows connects from the server's own network.
    here.run(move || {
        let counters = trial.survived(0);
        assert!(counters.of("timed out") > 0, "{}", counters.log);
    });
}

/// The connections in the network of a process, in whatever state; what listens is none.
fn connections(pid: Pid) -> usize {
    const LISTEN: &str = "0A";
    const TIME_WAIT: &str = "06";
    let sockets = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let states = sockets
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().nth(3));
    states
        .filter(|state| !matches!(state, Some(LISTEN | TIME_WAIT)))
        .count()
}

/// Checks that the clients have heard of nothing: no end has reached them.
#[track_caller]
fn assert_still_open(streams: &[TcpStream]) {
    for stream in streams {
        stream.set_nonblocking(true).expect("an option");
        let mut buffer = [0; 1 << 16];
        let end = (0..1000).find_map(|_| match (&mut &*stream).read(&mut buffer) {
            Ok(1..) => None,
            other => Some(other),
        });
        let waits = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        assert!(matches!(&end, Some(Err(error)) if waits(error)), "{end:?}");
    }
}
