//! Clients that keep a connection and do nothing with it: each deadline fires, in time, and the place is free again.
//! The same under every model, with less precision: tests/server_limits.rs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::clients::fill;
use crate::common::eventually;
use crate::common::procfs::status;
use crate::common::subject::{Kind, Setup};
use crate::crashes::large;
use crate::each_service;
use crate::trial::Trial;

each_service! {
    a_silent_client_is_closed_at_the_deadline_and_its_place_is_used_again
    a_request_of_a_byte_at_a_time_is_ended_at_its_deadline
    a_client_that_reads_nothing_is_closed_at_the_deadline_and_costs_no_memory
}

const DEADLINE: Duration = Duration::from_secs(2);
const MARGIN: Duration = Duration::from_millis(200);
/// How often a busy machine may be too late.
const ATTEMPTS: usize = 4;

/// A server with one place and this deadline.
fn with(kind: Kind, deadline: &str) -> Setup {
    let patient = ["--idle-timeout", "--request-timeout", "--send-timeout"];
    let options = patient
        .into_iter()
        .filter(|option| *option != deadline)
        .flat_map(|option| [option, "1h"]);
    let options: Vec<&str> = options
        .chain([deadline, "2", "--max-connections", "1"])
        .collect();
    Setup::new(kind).options(&options)
}

/// Checks that it takes as long as the deadline, to within ten per cent. A busy machine may take longer, not always.
#[track_caller]
fn takes_its_time(mut wait: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    for _ in 0..ATTEMPTS {
        let time = wait();
        assert!(time + MARGIN >= DEADLINE, "too early: {time:?}");
        if time <= DEADLINE + MARGIN {
            return;
        }
        took.push(time);
    }
    panic!("too late: {took:?}");
}

fn a_silent_client_is_closed_at_the_deadline_and_its_place_is_used_again(kind: Kind) {
    let trial = Trial::of(with(kind, "--idle-timeout"));
    takes_its_time(|| {
        let begun = Instant::now();
        let mut silent = trial.subject.connect();
        assert_eq!(silent.read(&mut [0]).expect("a clean end"), 0);
        begun.elapsed()
    });
    // There is one place, and a silent client has it.
    let _silent = trial.subject.connect();
    trial.subject.exchange(1);
    let counters = trial.survived(0);
    assert_eq!(counters.of("done"), counters.all, "{}", counters.log);
}

fn a_request_of_a_byte_at_a_time_is_ended_at_its_deadline(kind: Kind) {
    let trial = Trial::of(with(kind, "--request-timeout"));
    takes_its_time(|| {
        let begun = Instant::now();
        byte_by_byte(&trial, trial.subject.connect());
        begun.elapsed()
    });
    let counters = trial.survived(0);
    assert!(counters.of("timed out") > 0, "{}", counters.log);
}

/// Sends a byte every so often, until the connection is over.
fn byte_by_byte(trial: &Trial, mut stream: TcpStream) {
    const INTERVAL: Duration = Duration::from_millis(50);
    stream
        .set_read_timeout(Some(INTERVAL))
        .expect("a socket takes options");
    // Never the last one.
    let request = trial.subject.request(1);
    for byte in request.iter().take(request.len() - 1).cycle() {
        let byte = if trial.subject.kind == Kind::Echo {
            b'.'
        } else {
            *byte
        };
        if stream.write_all(&[byte]).is_err() {
            return;
        }
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
            Ok(_) => panic!("a reply to half a request"),
        }
    }
}

fn a_client_that_reads_nothing_is_closed_at_the_deadline_and_costs_no_memory(kind: Kind) {
    if kind == Kind::Tracker {
        // Its replies are so short that the system takes them in any case.
        return;
    }
    let trial = Trial::of(with(kind, "--send-timeout").sample(large()));
    takes_its_time(|| {
        let mut stream = trial.subject.connect();
        let child = trial.child_of(&stream);
        let before = status(child, "RssAnon").expect("it runs");
        match kind {
            Kind::Echo => fill(&mut stream),
            _ => {
                let many = trial.subject.request(1).repeat(1000);
                stream.write_all(&many).expect("the system takes it");
            }
        }
        let begun = Instant::now();
        let after = status(child, "RssAnon").expect("it runs");
        assert!(after <= before + 512, "{before} KiB became {after} KiB");
        eventually("it is closed", || !trial.serving().contains(&child));
        begun.elapsed()
    });
    let counters = trial.survived(0);
    assert!(counters.of("timed out") > 0, "{}", counters.log);
}
