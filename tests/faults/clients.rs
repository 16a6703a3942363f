//! Clients that go, break off, or talk nonsense.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::common::procfs::status;
use crate::common::sample::random;
use crate::common::subject::{Kind, Setup, peer};
use crate::common::{clients, holds_within, trackers};
use crate::crashes::{large, reset};
use crate::each_service;
use crate::trial::Trial;

/// Where nothing moves for so long, nothing will.
const STILL: Duration = Duration::from_millis(100);

each_service! {
    clients_that_reset_before_they_are_accepted_block_nothing
    clients_that_break_off_in_mid_reply_kill_nothing
    clients_that_half_close_get_the_whole_reply
    what_is_no_request_is_refused_and_allocates_nothing
}

fn clients_that_reset_before_they_are_accepted_block_nothing(kind: Kind) {
    for model in ["process", "event", "thread"] {
        let trial = Trial::of(Setup::new(kind).model(model));
        // Whoever is not accepted yet waits in the backlog.
        trial.freeze();
        for sent in [0, 5] {
            for _ in 0..50 {
                let mut stream = trial.subject.connect();
                stream
                    .write_all(&trial.subject.request(1)[..sent])
                    .expect("the system takes it");
                reset(stream);
            }
        }
        let mut patient = trial.subject.connect();
        patient
            .write_all(&trial.subject.request(7))
            .expect("the system takes it");
        trial.thaw();
        trial.subject.check_reply(&mut patient, 7);
        drop(patient);
        trial.survived(0);
    }
}

/// A reply that is under way when its client goes: of a peer a block, of an echo more than the socket holds.
fn clients_that_break_off_in_mid_reply_kill_nothing(kind: Kind) {
    for model in ["process", "event", "thread"] {
        let trial = Trial::of(Setup::new(kind).model(model).sample(large()));
        const MANY: u64 = 3;
        for number in 0..MANY {
            let mut stream = trial.subject.connect();
            if kind == Kind::Echo {
                fill(&mut stream);
            } else {
                stream
                    .write_all(&trial.subject.request(number as usize))
                    .expect("the server reads");
            }
            if kind == Kind::Peer {
                stream
                    .read_exact(&mut [0; 1000])
                    .expect("a response begins");
            }
            // What was not read makes a reset of the close.
            drop(stream);
        }
        let counters = trial.survived(0);
        if kind != Kind::Tracker {
            assert_eq!(counters.of("disconnected"), MANY, "{}", counters.log);
        }
    }
}

/// Sends lines and reads nothing until the server, whose replies nobody takes, reads nothing either.
pub fn fill(stream: &mut TcpStream) {
    stream.set_nonblocking(true).expect("an option");
    let lines = [&[b'.'; 4095][..], b"\n"].concat().repeat(64);
    // Beyond this no system would buffer.
    for _ in 0..2000 {
        if stream.write(&lines).is_err() && !holds_within(STILL, || stream.write(b".").is_ok()) {
            return;
        }
    }
    panic!("an echo that nobody reads comes to a halt");
}

/// See also `half_close` of tests/models.rs, which has every model.
fn clients_that_half_close_get_the_whole_reply(kind: Kind) {
    let trial = Trial::of(Setup::new(kind).sample(large()));
    for number in 0..4 {
        let mut stream = trial.subject.connect();
        stream
            .write_all(&trial.subject.request(number))
            .and_then(|()| stream.shutdown(Shutdown::Write))
            .expect("the server reads");
        trial.subject.check_reply(&mut stream, number);
        clients::assert_closed(stream);
    }
    let counters = trial.survived(0);
    assert_eq!(counters.of("done"), counters.all, "{}", counters.log);
}

/// Requests that are none: cut off, of another protocol, with numbers beyond everything, random, without end.
fn nonsense(kind: Kind) -> Vec<Vec<u8>> {
    // Where a request of this service has numbers.
    let (right, numbers): (_, &[(usize, usize)]) = match kind {
        // Version, command, length.
        Kind::Tracker => (
            trackers::request(1, &[7; 32], peer(1)),
            &[(4, 4), (8, 4), (12, 4)],
        ),
        // The flags of the extension; the block, of a file that nobody has.
        _ => (
            clients::request_with(&[7; 32], 0, clients::extension(1)),
            &[(12, 4), (24, 8)],
        ),
    };
    let mut all = vec![
        right[..1].to_vec(),
        right[..right.len() - 1].to_vec(),
        [b"X", &right[1..]].concat(),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2),
        vec![0; 1 << 20],
        vec![0xff; 1 << 20],
    ];
    for &(at, length) in numbers {
        for first in [0x7f, 0xff] {
            let mut beyond = right.clone();
            beyond[at..at + length].fill(0xff);
            beyond[at] = first;
            all.push(beyond);
        }
    }
    let random = random(16 << 10);
    all.extend([1, 3, 53, 54, 63, 64, 65, 4096].map(|length| random[length..2 * length].to_vec()));
    all
}

fn what_is_no_request_is_refused_and_allocates_nothing(kind: Kind) {
    for model in ["process", "event"] {
        let trial = Trial::of(Setup::new(kind).model(model));
        // Whoever allocates what a stranger's length says dies of it: that is a crash.
        let listener = trial.listener();
        let size = status(listener, "VmSize").expect("it runs") << 10;
        let limit = format!("--as={}:", size + (2 << 20));
        let limited = Command::new("prlimit")
            .args(["--pid", &listener.to_string(), &limit])
            .status();
        assert!(limited.expect("prlimit of util-linux").success());
        for bytes in nonsense(kind) {
            let mut stream = trial.subject.connect();
            // It may be refused, and closed, before all of it was sent.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let mut reply = Vec::new();
            let _ = stream.read_to_end(&mut reply);
            if kind == Kind::Echo {
                assert_eq!(reply.len().min(1000), bytes.len().min(1000));
            } else if let Some(status) = reply.first() {
                assert_ne!(*status, 0, "{bytes:02x?}");
                assert!(
                    reply.ends_with(b"\n"),
                    "a message ends with a newline: {reply:02x?}"
                );
                assert!(reply.len() < 1000, "{reply:02x?}");
            }
        }
        let counters = trial.survived(0);
        if kind != Kind::Echo {
            let wrong = counters.of("protocol error") + counters.of("refused");
            assert_eq!(wrong, nonsense(kind).len() as u64, "{}", counters.log);
        }
    }
}
