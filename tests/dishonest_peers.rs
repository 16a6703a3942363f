//! `cascade get` against peers that lie, stall or break off. Together with an honest peer the download completes; a
//! liar is not asked again; where there is nobody else the run ends, and nothing wrong is kept.

mod common;

use std::io;
use std::time::Duration;

use common::peers::{self, Habit};
use common::sample::Sample;
use common::scene::Scene;
use common::standin::{Accepts, Asked, Conn, StandIn};

/// Workers of each download: one for each of two peers.
const WORKERS: usize = 2;

fn sample() -> Sample {
    Sample::new("data", 64 * 1024 - 100, 1024)
}

/// Honest, and slow enough that the other peer has its turn.
fn honest(sample: &Sample) -> StandIn {
    peers::start_with(
        Accepts::Together,
        sample,
        peers::takes_its_time(Duration::from_millis(5)),
    )
}

/// Answers the first request as `answer` says, and goes on answering so.
fn answers(
    conn: &mut Conn,
    sample: &Sample,
    answer: fn(&Sample, &Asked) -> Vec<u8>,
) -> io::Result<()> {
    while let Some(asked) = conn.request(sample)? {
        conn.send(&answer(sample, &asked))?;
    }
    Ok(())
}

fn body(sample: &Sample, asked: &Asked) -> Vec<u8> {
    sample.block(asked.block()).unwrap_or_default().to_vec()
}

fn corrupts(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    answers(conn, sample, |sample, asked| {
        let mut body = body(sample, asked);
        body[7] ^= 0x10;
        peers::response(0, &body)
    })
}

fn sends_another_block(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    answers(conn, sample, |sample, asked| {
        // The right length but for the last block; the bytes of a neighbour.
        let other = sample.block(asked.block() ^ 1).unwrap_or_default();
        let mut other = other.to_vec();
        other.resize(body(sample, asked).len(), 0);
        peers::response(0, &other)
    })
}

fn sends_a_byte_too_few(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    answers(conn, sample, |sample, asked| {
        let body = body(sample, asked);
        peers::response(0, &body[..body.len() - 1])
    })
}

fn sends_a_byte_too_many(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    answers(conn, sample, |sample, asked| {
        let mut body = body(sample, asked);
        body.push(0);
        peers::response(0, &body)
    })
}

fn sends_nothing_as_a_block(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    answers(conn, sample, |_, _| peers::response(0, b""))
}

fn announces_the_longest_block(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    answers(conn, sample, |sample, asked| {
        peers::announced(0, u64::MAX, &body(sample, asked))
    })
}

fn answers_an_unknown_status(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    answers(conn, sample, |_, _| peers::response(77, b"so what\n"))
}

fn denies_that_the_block_exists(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    answers(conn, sample, |_, _| peers::response(3, b"no such block\n"))
}

fn speaks_another_protocol(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    conn.request(sample)?;
    conn.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
}

/// A message without an end: the client must not read it all, nor keep it.
fn talks_without_end(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    conn.request(sample)?;
    conn.send(&peers::announced(2, u64::MAX, b""))?;
    loop {
        conn.send(&[b'a'; 4096])?;
    }
}

/// Corrupts what it sends, and is quick: where nobody else is there it is found out at once.
#[track_caller]
fn is_found_out(habit: Habit) {
    completes_beside_an_honest_peer(habit, true);
    alone_it_ends_the_run(habit);
}

#[track_caller]
fn completes_beside_an_honest_peer(habit: Habit, lies: bool) {
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    let (liar, honest) = (peers::start(&sample, habit), honest(&sample));
    let done = scene
        .cascade("get")
        .args(["-w", &WORKERS.to_string()])
        .peer(liar.address())
        .peer(honest.address())
        .arg(&cascade)
        .run()
        .assert_code(0)
        .assert_within(Duration::from_secs(25));
    assert_eq!(done.results(), [sample.line(&scene.path("data"))]);
    sample.assert_complete(&scene.path("data"));
    if lies {
        // Each worker may have asked before the first lie was found, with the extension and without.
        let asked = liar.asked().len();
        assert!(asked <= 2 * WORKERS, "a liar was asked {asked} times");
    }
}

/// With only `-p` and all of them dropped, the run ends at once with status 3; what is not right is not kept.
#[track_caller]
fn alone_it_ends_the_run(habit: Habit) {
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    let liar = peers::start(&sample, habit);
    let done = scene
        .cascade("get")
        .peer(liar.address())
        .arg(&cascade)
        .run()
        .assert_code(3)
        .assert_within(Duration::from_secs(8));
    assert!(done.results().is_empty(), "{done:#?}");
    assert!(!done.stderr.is_empty(), "it says why");
    assert!(!scene.path("data").exists(), "nothing under the final name");
    let part = sample.part(&scene.path("data"));
    assert!(sample.held(&part).is_empty(), "no block of it is right");
}

#[test]
fn a_peer_that_sends_wrong_bytes_is_dropped() {
    is_found_out(corrupts);
}

#[test]
fn a_peer_that_sends_another_block_is_dropped() {
    is_found_out(sends_another_block);
}

#[test]
fn a_peer_that_sends_a_byte_too_few_is_dropped() {
    is_found_out(sends_a_byte_too_few);
}

#[test]
fn a_peer_that_sends_a_byte_too_many_is_dropped() {
    is_found_out(sends_a_byte_too_many);
}

#[test]
fn a_peer_that_sends_nothing_as_a_block_is_dropped() {
    is_found_out(sends_nothing_as_a_block);
}

#[test]
fn a_peer_that_announces_2_to_the_64_bytes_is_dropped() {
    is_found_out(announces_the_longest_block);
}

#[test]
fn a_peer_that_answers_an_unknown_status_is_dropped() {
    is_found_out(answers_an_unknown_status);
}

#[test]
fn a_peer_that_speaks_another_protocol_is_dropped() {
    is_found_out(speaks_another_protocol);
}

#[test]
fn a_peer_that_denies_a_block_that_exists_is_no_hindrance() {
    completes_beside_an_honest_peer(denies_that_the_block_exists, false);
}

#[test]
fn a_peer_that_talks_without_end_is_no_hindrance() {
    completes_beside_an_honest_peer(talks_without_end, false);
}

#[test]
fn a_lie_after_right_blocks_is_found_and_the_right_blocks_are_kept() {
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    let liar = peers::start_with(Accepts::Together, &sample, |conn, sample| {
        while let Some(asked) = conn.request(sample)? {
            if conn.asked_so_far() == 20 {
                conn.send(&peers::response(0, &[0; 1024]))?;
            } else {
                conn.send(&peers::block(sample, &asked))?;
            }
        }
        Ok(())
    });
    let get = || scene.cascade("get").args(["-w", "1"]).arg(&cascade);
    get().peer(liar.address()).run().assert_code(3);
    let lie = liar.asked()[19].block();
    let kept = sample.held(&sample.part(&scene.path("data")));
    assert!(!kept.is_empty() && !kept.contains(&lie), "{lie}, {kept:?}");
    assert!(!scene.path("data").exists());
    let honest = honest(&sample);
    get().peer(honest.address()).run().assert_code(0);
    sample.assert_complete(&scene.path("data"));
    assert!(
        honest
            .asked()
            .iter()
            .all(|asked| !kept.contains(&asked.block())),
        "what was kept is not asked for again"
    );
}

// Peers that break off or are silent: no lie, but no use either.

fn closes_without_an_answer(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    conn.request(sample).map(drop)
}

/// Closes with the request unread: a reset.
fn resets_the_connection(conn: &mut Conn, _: &Sample) -> io::Result<()> {
    conn.input_within(Duration::from_secs(5));
    Ok(())
}

fn closes_in_the_middle_of_a_block(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    match conn.request(sample)? {
        Some(asked) => {
            let bytes = peers::block(sample, &asked);
            conn.send(&bytes[..bytes.len() / 2])
        }
        None => Ok(()),
    }
}

fn closes_in_the_middle_of_a_header(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    conn.request(sample)?;
    conn.send(&[0, 0, 0])
}

fn stalls_in_the_middle_of_a_block(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    closes_in_the_middle_of_a_block(conn, sample)?;
    conn.hang()
}

fn never_answers(conn: &mut Conn, _: &Sample) -> io::Result<()> {
    conn.hang()
}

/// Together with an honest peer the download completes; alone the run ends for want of progress.
#[track_caller]
fn is_of_no_use(habit: Habit) {
    completes_beside_an_honest_peer(habit, false);
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    let alone = peers::start(&sample, habit);
    scene
        .cascade("get")
        .args(["--timeout", "2"])
        .peer(alone.address())
        .arg(&cascade)
        .run()
        .assert_code(3)
        .assert_within(Duration::from_secs(15));
    assert!(!scene.path("data").exists(), "nothing under the final name");
    let part = sample.part(&scene.path("data"));
    assert!(sample.held(&part).is_empty(), "no block of it is right");
}

#[test]
fn a_peer_that_closes_without_an_answer_is_no_hindrance() {
    is_of_no_use(closes_without_an_answer);
}

#[test]
fn a_peer_that_resets_the_connection_is_no_hindrance() {
    is_of_no_use(resets_the_connection);
}

#[test]
fn a_peer_that_closes_in_the_middle_of_a_block_is_no_hindrance() {
    is_of_no_use(closes_in_the_middle_of_a_block);
}

#[test]
fn a_peer_that_closes_in_the_middle_of_a_header_is_no_hindrance() {
    is_of_no_use(closes_in_the_middle_of_a_header);
}

#[test]
fn a_peer_that_stalls_in_the_middle_of_a_block_is_no_hindrance() {
    is_of_no_use(stalls_in_the_middle_of_a_block);
}

#[test]
fn a_peer_that_never_answers_is_no_hindrance() {
    is_of_no_use(never_answers);
}

#[test]
fn a_peer_that_refuses_connections_is_no_hindrance() {
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    let (nobody, honest) = (common::trackers::nobody_there(), honest(&sample));
    scene
        .cascade("get")
        .peer(nobody)
        .peer(honest.address())
        .arg(&cascade)
        .run()
        .assert_code(0)
        .assert_within(Duration::from_secs(15));
    sample.assert_complete(&scene.path("data"));
}

#[test]
fn a_peer_without_the_rest_ends_the_run_after_the_timeout_and_its_blocks_are_kept() {
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    let partial = peers::start_with(
        Accepts::Together,
        &sample,
        peers::has_some_and_knows_the_map(|block| block < 20),
    );
    scene
        .cascade("get")
        .args(["--timeout", "2"])
        .peer(partial.address())
        .arg(&cascade)
        .run()
        .assert_code(3)
        .assert_within(Duration::from_secs(15));
    let held = sample.held(&sample.part(&scene.path("data")));
    assert!(held.into_iter().eq(0..20), "what came is kept");
    assert!(!scene.path("data").exists());
}

#[test]
fn what_a_peer_says_is_shown_without_its_control_characters_and_cut() {
    let (scene, sample) = (Scene::new(), sample());
    let cascade = sample.write_cascade(&scene.path(""));
    let rude = peers::start(&sample, |conn, sample| {
        conn.request(sample)?;
        let mut message = b"go away\x1b[2J\x1b]0;title\x07\r\ncascade: all is well\n".to_vec();
        message.extend_from_slice(&[b'x'; 4000]);
        conn.send(&peers::response(1, &message))
    });
    let done = scene
        .cascade("get")
        .args(["--timeout", "2", "-v"])
        .peer(rude.address())
        .arg(&cascade)
        .run()
        .assert_code(3);
    for line in done.stderr.lines() {
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(line.chars().count() < 500, "{line:?}");
        assert!(!line.starts_with("cascade: all is well"), "{line:?}");
    }
}
