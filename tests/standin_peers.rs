//! `cascade get` against the honest peers that are out there (PROTOCOL §4): each must be used as well as one of our
//! own, although each has a habit. The liars are in `dishonest_peers.rs`.

mod common;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::eventually;
use common::peers::{self, Habit};
use common::sample::Sample;
use common::scene::Scene;
use common::standin::{Accepts, StandIn};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt,
};

/// How long a download of some dozen blocks may take, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(15);

/// Enough blocks for a worker to learn a peer's habit and to use what it learned; the last one is short.
fn sample() -> Sample {
    Sample::new("data", 48 * 1024 - 100, 1024)
}

/// Downloads from one peer and checks the copy, the output, what is left, and how the peer was treated.
#[track_caller]
fn downloads_from(stand_in: &StandIn, sample: &Sample, limit: Duration) {
    let scene = Scene::new();
    let cascade = sample.write_cascade(&scene.path(""));
    let done = scene
        .cascade("get")
        .peer(stand_in.address())
        .arg(&cascade)
        .run()
        .assert_code(0)
        .assert_within(limit);
    let path = scene.path(&sample.name);
    assert_eq!(done.results(), [sample.line(&path)]);
    sample.assert_complete(&path);
    assert!(
        !sample.part(&scene.path("data")).exists(),
        "the .part was renamed"
    );
    stand_in.assert_well_treated();
    let asked: BTreeSet<u64> = stand_in
        .asked()
        .iter()
        .map(common::standin::Asked::block)
        .collect();
    assert_eq!(asked, sample.all(), "each block was asked for");
}

#[track_caller]
fn downloads_with_habit(habit: Habit) {
    let sample = sample();
    downloads_from(&peers::start(&sample, habit), &sample, SOON);
}

#[test]
fn a_peer_that_keeps_the_connection_open_is_used() {
    downloads_with_habit(peers::keeps_the_connection_open);
}

#[test]
fn a_peer_that_keeps_the_connection_open_is_not_connected_to_again_and_again() {
    let sample = sample();
    let stand_in = peers::start(&sample, peers::keeps_the_connection_open);
    downloads_from(&stand_in, &sample, SOON);
    // Four workers at least, the number of cores at most, and one connection each, maybe one more to say hello.
    let workers = std::thread::available_parallelism().map_or(4, |cores| cores.get().max(4));
    assert!(
        stand_in.connections() <= 2 * workers,
        "{} connections for {} blocks",
        stand_in.connections(),
        sample.blocks()
    );
}

#[test]
fn a_peer_that_closes_after_each_block_is_used() {
    downloads_with_habit(peers::closes_after_each_block);
}

#[test]
fn a_close_after_each_block_costs_no_pause() {
    let sample = Sample::new("data", 300 * 100, 100);
    let stand_in = peers::start(&sample, peers::closes_after_each_block);
    // 300 connections; the smallest pause between them would show.
    downloads_from(&stand_in, &sample, Duration::from_secs(12));
}

#[test]
fn a_peer_that_closes_after_five_blocks_loses_none() {
    downloads_with_habit(peers::closes_after_five_blocks);
}

#[test]
fn a_peer_that_reads_with_a_single_recv_gets_each_request_whole() {
    downloads_with_habit(peers::reads_with_a_single_recv_of_64);
}

#[test]
fn a_peer_that_refuses_two_requests_in_one_recv_is_used() {
    downloads_with_habit(peers::refuses_two_requests_in_one_recv);
}

#[test]
fn a_peer_that_answers_only_the_first_of_several_requests_in_one_recv_is_used() {
    let sample = sample();
    let stand_in = peers::start(&sample, peers::answers_only_the_first_of_a_recv);
    // What it forgot is missed only after a while.
    downloads_from(&stand_in, &sample, Duration::from_secs(50));
}

#[test]
fn a_peer_that_sends_byte_by_byte_is_used() {
    let sample = Sample::new("data", 24 * 200 + 1, 200);
    let stand_in = peers::start(&sample, peers::sends_byte_by_byte);
    downloads_from(&stand_in, &sample, SOON);
}

#[test]
fn a_peer_that_sends_header_and_body_in_segments_is_used() {
    downloads_with_habit(peers::sends_header_and_body_in_segments);
}

#[test]
fn a_peer_that_resets_where_requests_wait_is_not_asked_ahead_too_early() {
    downloads_with_habit(peers::resets_where_requests_wait);
}

#[test]
fn a_peer_that_answers_end_of_file_with_status_4_is_used() {
    downloads_with_habit(peers::answers_end_of_file_with_status_4);
}

#[test]
fn a_peer_that_answers_the_extension_with_status_4_is_used() {
    downloads_with_habit(peers::answers_the_extension_with_status_4);
}

#[test]
fn a_peer_that_closes_at_the_extension_is_used() {
    downloads_with_habit(peers::closes_at_the_extension);
}

#[test]
fn a_peer_that_knows_the_map_is_used() {
    let sample = sample();
    let stand_in = peers::start(&sample, peers::has_all_and_knows_the_map);
    downloads_from(&stand_in, &sample, SOON);
}

#[test]
fn a_peer_that_serves_one_connection_at_a_time_and_closes_after_each_block_is_used() {
    let sample = sample();
    let stand_in = peers::start_with(Accepts::OneByOne, &sample, peers::closes_after_each_block);
    downloads_from(&stand_in, &sample, Duration::from_secs(30));
}

#[test]
fn a_peer_that_serves_one_connection_at_a_time_for_as_long_as_it_lasts_is_used() {
    let sample = sample();
    // Slow enough for the other workers to connect, and to wait in vain.
    let stand_in = peers::start_with(
        Accepts::OneByOne,
        &sample,
        peers::takes_its_time(Duration::from_millis(30)),
    );
    downloads_from(&stand_in, &sample, Duration::from_secs(30));
}

#[test]
fn a_peer_that_stops_listening_for_seconds_is_used_again() {
    let sample = sample();
    let pauses = Accepts::WithPauses(20, Duration::from_secs(2));
    let stand_in = peers::start_with(pauses, &sample, peers::closes_after_each_block);
    downloads_from(&stand_in, &sample, Duration::from_secs(45));
}

#[test]
fn a_peer_without_the_extension_is_owed_16_answers_at_most() {
    let sample = Sample::new("data", 200 * 64, 64);
    let stand_in = peers::start_with(Accepts::Together, &sample, |conn, sample| {
        for _ in 0..2 {
            let Some(asked) = conn.request(sample)? else {
                return Ok(());
            };
            conn.send(&peers::block(sample, &asked))?;
        }
        // Whatever the client is willing to ask ahead, it asks now.
        loop {
            let mut owed = Vec::new();
            while conn.input_within(Duration::from_millis(60)) {
                match conn.request(sample)? {
                    Some(asked) => owed.push(asked),
                    None => return Ok(()),
                }
            }
            if owed.len() > 16 {
                conn.fault(format!("{} requests are outstanding", owed.len()));
            }
            for asked in owed {
                conn.send(&peers::block(sample, &asked))?;
            }
        }
    });
    downloads_from(&stand_in, &sample, SOON);
}

#[test]
fn a_block_that_is_not_present_yet_is_asked_for_again_later() {
    let sample = sample();
    // The odd blocks are there only after a second.
    let begin = std::time::Instant::now();
    let stand_in = peers::start_with(Accepts::Together, &sample, move |conn, sample| {
        while let Some(asked) = conn.request(sample)? {
            let early = begin.elapsed() < Duration::from_secs(1);
            if early && asked.block() % 2 == 1 {
                conn.send(&peers::not_present())?;
            } else {
                conn.send(&peers::block(sample, &asked))?;
            }
        }
        Ok(())
    });
    downloads_from(&stand_in, &sample, Duration::from_secs(30));
    assert!(
        stand_in.asked().len() < 40 * sample.blocks(),
        "nobody is asked {} times for {} blocks",
        stand_in.asked().len(),
        sample.blocks()
    );
}

/// Downloads from peers of which none has everything.
#[track_caller]
fn downloads_from_parts(stand_ins: &[StandIn], sample: &Sample) {
    let scene = Scene::new();
    let cascade = sample.write_cascade(&scene.path(""));
    let get = stand_ins
        .iter()
        .fold(scene.cascade("get"), |get, stand_in| {
            get.peer(stand_in.address())
        });
    get.arg(&cascade)
        .run()
        .assert_code(0)
        .assert_within(Duration::from_secs(30));
    sample.assert_complete(&scene.path("data"));
    for stand_in in stand_ins {
        stand_in.assert_well_treated();
    }
}

#[test]
fn peers_that_know_the_map_and_have_half_each_are_used_together() {
    let sample = sample();
    let start = |has| {
        peers::start_with(
            Accepts::Together,
            &sample,
            peers::has_some_and_knows_the_map(has),
        )
    };
    downloads_from_parts(
        &[start(|block| block % 2 == 0), start(|block| block % 2 == 1)],
        &sample,
    );
}

#[test]
fn peers_that_answer_not_present_and_have_half_each_are_used_together() {
    let sample = sample();
    let start = |rest| {
        peers::start_with(Accepts::Together, &sample, move |conn, sample| {
            while let Some(asked) = conn.request(sample)? {
                if asked.block() % 2 == rest {
                    conn.send(&peers::block(sample, &asked))?;
                } else {
                    conn.send(&peers::not_present())?;
                }
            }
            Ok(())
        })
    };
    downloads_from_parts(&[start(0), start(1)], &sample);
}

#[test]
fn a_peer_that_does_not_have_the_file_is_no_hindrance() {
    let sample = sample();
    let without = peers::start(&sample, |conn, sample| {
        conn.request(sample)?;
        conn.send(&peers::response(1, b"unknown hash\n"))
    });
    let with = peers::start(&sample, peers::keeps_the_connection_open);
    downloads_from_parts(&[without, with], &sample);
}

#[test]
fn a_slow_peer_loses_its_blocks_to_a_quick_one_at_the_end() {
    let sample = sample();
    // It would take a minute for each block.
    let slow = peers::start_with(
        Accepts::Together,
        &sample,
        peers::takes_its_time(Duration::from_secs(60)),
    );
    let quick = peers::start(&sample, peers::keeps_the_connection_open);
    downloads_from_parts(&[slow, quick], &sample);
}

#[test]
fn at_the_end_a_block_is_asked_for_twice_at_most_at_the_same_time() {
    let sample = sample();
    // All three are so slow that the download ends with requests to all of them.
    let start = || {
        peers::start_with(
            Accepts::Together,
            &sample,
            peers::takes_its_time(Duration::from_millis(100)),
        )
    };
    let stand_ins = [start(), start(), start()];
    downloads_from_parts(&stand_ins, &sample);
    // None of them fails, so none of these requests was a second attempt.
    let asked: Vec<u64> = stand_ins
        .iter()
        .flat_map(StandIn::asked)
        .filter(|asked| !asked.is_extended())
        .map(|asked| asked.block())
        .collect();
    for block in sample.all() {
        let times = asked.iter().filter(|asked| **asked == block).count();
        assert!(times <= 2, "block {block} was asked for {times} times");
    }
}

#[test]
fn a_peer_that_does_not_listen_for_seconds_is_waited_for() {
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    // It has the port, so that nobody else gets it, but does not listen yet.
    let port = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .expect("a socket");
    setsockopt(&port, sockopt::ReuseAddr, &true).expect("an option");
    let any = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    bind(port.as_raw_fd(), &any).expect("a free port");
    let address: SockaddrIn = getsockname(port.as_raw_fd()).expect("a name");
    let address = SocketAddrV4::from(address);
    let get = scene
        .cascade("get")
        .arg("--json")
        .peer(address.into())
        .arg(&cascade)
        .start();
    // The last of these attempts comes about two seconds after the first.
    eventually("it is refused four times", || {
        get.stdout().matches("\"unreachable\"").count() >= 4
    });
    let seed = scene.directory("seed");
    sample.write_data(&seed);
    let peer = scene.cascade("peer").args(["-l", &address.to_string()]);
    let _peer = peer.arg(sample.write_cascade(&seed)).serve();
    get.finish().assert_code(0);
    sample.assert_complete(&scene.path("data"));
}
