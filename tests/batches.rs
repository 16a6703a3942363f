//! Small blocks go in batches: requests, answers, writes and reports. Whatever happens in the midst of one, no block is
//! lost and none is wrong.

mod common;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Duration;

use common::clients::{connect, extension, request, request_with, response};
use common::peers::{self, REQUEST_LEN};
use common::process::Server;
use common::sample::Sample;
use common::scene::Scene;
use common::standin::{Accepts, Asked, Conn, StandIn};
use common::{eventually, holds_within};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(30);

/// Some thousand blocks, of an odd length, so that batches end within them.
fn sample() -> Sample {
    Sample::new("data", 3000 * 517 - 100, 517)
}

/// Takes all requests that have arrived; answers them as a peer with the extension that has everything. Nothing at the
/// end of input.
fn answers(
    conn: &mut Conn,
    sample: &Sample,
    answer: impl Fn(&Asked) -> Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    let Some(mut bytes) = conn.receive(REQUEST_LEN)? else {
        return Ok(None);
    };
    let more = conn.unread()? / REQUEST_LEN * REQUEST_LEN;
    if more > 0 {
        bytes.extend(conn.receive(more)?.unwrap_or_default());
    }
    let batch = bytes.chunks(REQUEST_LEN).flat_map(|request| {
        let asked = conn.check(request.to_vec(), sample);
        if asked.wants_map() {
            peers::response(5, b"")
        } else {
            answer(&asked)
        }
    });
    Ok(Some(batch.collect()))
}

/// Downloads from one peer alone.
#[track_caller]
fn downloads_from(stand_in: &StandIn, sample: &Sample) {
    let scene = Scene::new();
    let cascade = sample.write_cascade(&scene.path(""));
    scene
        .cascade("get")
        .peer(stand_in.address())
        .arg(&cascade)
        .run()
        .assert_code(0)
        .assert_within(SOON);
    sample.assert_complete(&scene.path(&sample.name));
    stand_in.assert_well_treated();
}

#[test]
fn batches_that_arrive_in_two_parts_with_a_pause_within_a_block_are_right() {
    let sample = sample();
    let stand_in = peers::start(&sample, |conn, sample| {
        let mut cut = 0;
        while let Some(batch) = answers(conn, sample, |asked| peers::block(sample, asked))? {
            cut = (cut + 997) % batch.len();
            conn.send(&batch[..cut])?;
            // Long enough for the client to see that there is no more, and to write what it has.
            conn.pause(Duration::from_millis(3));
            conn.send(&batch[cut..])?;
        }
        Ok(())
    });
    downloads_from(&stand_in, &sample);
}

#[test]
fn requests_are_sent_together_to_a_peer_with_the_extension() {
    let sample = sample();
    let stand_in = peers::start(&sample, |conn, sample| {
        while let Some(batch) = answers(conn, sample, |asked| peers::block(sample, asked))? {
            conn.send(&batch)?;
            if conn.asked_so_far() > 100 && !conn.input_within(Duration::from_secs(10)) {
                conn.fault("nothing was asked for after a whole batch was answered");
            }
        }
        Ok(())
    });
    downloads_from(&stand_in, &sample);
    // Each block once: neither a batch nor its end makes it ask again.
    let asked = stand_in.asked();
    let blocks = asked.iter().filter(|asked| !asked.is_extended());
    let blocks: Vec<u64> = blocks.map(Asked::block).collect();
    let different: BTreeSet<u64> = blocks.iter().copied().collect();
    assert_eq!(blocks.len(), different.len());
    assert_eq!(different, sample.all());
}

#[test]
fn a_connection_that_ends_within_a_batch_costs_no_block() {
    let sample = sample();
    let stand_in = peers::start(&sample, |conn, sample| {
        let mut batches = 0;
        while let Some(batch) = answers(conn, sample, |asked| peers::block(sample, asked))? {
            batches += 1;
            if batches == 6 && conn.number() < 3 {
                // Within a block, somewhere in the batch.
                return conn.send(&batch[..batch.len() * 2 / 3]);
            }
            conn.send(&batch)?;
        }
        Ok(())
    });
    downloads_from(&stand_in, &sample);
    assert!(stand_in.connections() > 1, "it was connected to again");
}

#[test]
fn what_came_before_a_wrong_block_of_a_batch_is_kept() {
    const WRONG: u64 = 1500;
    let sample = sample();
    let liar = peers::start(&sample, |conn, sample| {
        let answer = |asked: &Asked| match peers::block(sample, asked) {
            mut block if asked.block() == WRONG => {
                block[20] ^= 1;
                block
            }
            block => block,
        };
        while let Some(batch) = answers(conn, sample, answer)? {
            conn.send(&batch)?;
        }
        Ok(())
    });
    let scene = Scene::new();
    let cascade = sample.write_cascade(&scene.path(""));
    let get = || scene.cascade("get").arg(&cascade);
    get()
        .args(["-w", "1"])
        .peer(liar.address())
        .run()
        .assert_code(3);
    let kept: BTreeSet<u64> = (0..WRONG).collect();
    assert!(
        sample
            .held(&sample.part(&scene.path("data")))
            .is_superset(&kept),
        "blocks before the wrong one are there"
    );
    let honest = peers::start(&sample, peers::has_all_and_knows_the_map);
    get().peer(honest.address()).run().assert_code(0);
    sample.assert_complete(&scene.path("data"));
    let again = honest
        .asked()
        .iter()
        .any(|asked| !asked.is_extended() && kept.contains(&asked.block()));
    assert!(!again, "what was kept is not asked for again");
}

/// A file in small blocks, of which one is missing, served by our own.
struct Serving {
    // Dropped in this order: no process is left when the scene looks.
    peer: Server,
    sample: Sample,
    _scene: Scene,
}

const MISSING: u64 = 70;

impl Serving {
    fn new(block: usize) -> Self {
        let (scene, sample) = (Scene::new(), Sample::new("data", 200 * block - 1, block));
        let cascade = sample.write_cascade(&scene.path(""));
        let mut damaged = sample.bytes.clone();
        damaged[MISSING as usize * block] ^= 1;
        std::fs::write(scene.path("data"), damaged).expect("the data file can be written");
        let peer = scene
            .cascade("peer")
            .args(["-l", "127.0.0.1:0"])
            .arg(cascade)
            .serve();
        Self {
            peer,
            sample,
            _scene: scene,
        }
    }

    /// Asks for these blocks ahead and reads nothing until all are asked for; checks every answer, and says how
    /// many bytes they are.
    #[track_caller]
    fn assert_answers(&self, blocks: impl Iterator<Item = u64> + Clone) -> usize {
        let mut bytes = 0;
        let mut stream = connect(self.peer.address());
        let hash = self.sample.hash();
        let requests: Vec<u8> = blocks
            .clone()
            .flat_map(|block| request(&hash, block))
            .collect();
        stream.write_all(&requests).expect("requests are taken");
        let map = request_with(&hash, 0, extension(1));
        stream.write_all(&map).expect("requests are taken");
        for block in blocks {
            let (status, body) = response(&mut stream).expect("a response");
            bytes += 9 + body.len();
            if block == MISSING {
                assert_eq!(status, 2);
                continue;
            }
            assert_eq!(status, 0, "block {block}");
            assert!(Some(&body[..]) == self.sample.block(block), "block {block}");
        }
        let (status, map) = response(&mut stream).expect("a response");
        assert_eq!(status, 5);
        bytes + 9 + map.len()
    }
}

#[test]
fn many_small_blocks_asked_for_ahead_are_right_in_whatever_order() {
    for block in [2, 100, 16 << 10, (16 << 10) + 1] {
        let serving = Serving::new(block);
        serving.assert_answers(0..200);
        serving.assert_answers((0..200).rev());
        serving.assert_answers((0..200).map(|block| block * 77 % 200));
        serving.assert_answers((0..200).chain(198..200).chain(0..2));
    }
}

#[test]
fn what_is_sent_together_is_in_the_books() {
    let serving = Serving::new(100);
    let bytes = serving.assert_answers(0..200);
    let said = format!("bytes: {bytes} sent");
    eventually("the status counts it", || {
        serving.peer.process().signal(Signal::SIGUSR1);
        holds_within(Duration::from_millis(500), || {
            serving.peer.process().stderr().contains(&said)
        })
    });
}

#[test]
fn a_client_that_does_not_read_for_a_while_gets_everything_in_the_end() {
    // More than the buffers of both sides take.
    let serving = Serving::new(10_000);
    serving.assert_answers((0..2000).map(|block| block % 200));
}

#[test]
fn a_peer_that_reads_a_batch_and_answers_nothing_more_is_left_for_another() {
    let sample = sample();
    let silent = peers::start_with(Accepts::Together, &sample, |conn, sample| {
        for _ in 0..4 {
            match answers(conn, sample, |asked| peers::block(sample, asked))? {
                Some(batch) => conn.send(&batch)?,
                None => return Ok(()),
            }
        }
        conn.hang()
    });
    let honest = peers::start(&sample, peers::has_all_and_knows_the_map);
    let scene = Scene::new();
    let cascade = sample.write_cascade(&scene.path(""));
    scene
        .cascade("get")
        .peer(silent.address())
        .peer(honest.address())
        .arg(&cascade)
        .run()
        .assert_code(0)
        .assert_within(SOON);
    sample.assert_complete(&scene.path("data"));
}
