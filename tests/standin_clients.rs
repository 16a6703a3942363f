//! `cascade peer` as its clients see it, with the habits of PROTOCOL §4. Requests and answers are written out.

mod common;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::clients::{ask, assert_closed, connect, extension, request, request_with, response};
use common::process::Server;
use common::sample::Sample;
use common::scene::Scene;
use common::{eventually, peers};

const BLOCK: usize = 1024;
/// An idle connection is closed after this: some clients wait for it.
const IDLE: Duration = Duration::from_secs(5);

/// A peer that serves a file, or the blocks of it that are there.
struct Serving {
    // Dropped in this order: no process is left when the scene looks.
    peer: Server,
    sample: Sample,
    scene: Scene,
}

impl Serving {
    fn new() -> Self {
        Self::of(Sample::new("data", 20 * BLOCK + 100, BLOCK), |_| {})
    }

    /// Serves `sample` after `damage` was done to its data file.
    fn of(sample: Sample, damage: impl FnOnce(&mut Vec<u8>)) -> Self {
        let scene = Scene::new();
        let cascade = sample.write_cascade(&scene.path(""));
        let mut bytes = sample.bytes.clone();
        damage(&mut bytes);
        fs::write(scene.path(&sample.name), bytes).expect("the data file can be written");
        let peer = scene
            .cascade("peer")
            .args(["-l", "127.0.0.1:0"])
            .arg(cascade)
            .serve();
        let serving = Self {
            peer,
            sample,
            scene,
        };
        // It may listen before it has verified what is there.
        eventually("a block that is there is served", || {
            serving.ask(0).is_ok_and(|(status, _)| status == 0)
        });
        serving
    }

    fn address(&self) -> SocketAddr {
        self.peer.address()
    }

    fn request(&self, block: u64) -> Vec<u8> {
        request(&self.sample.hash(), block)
    }

    fn ask(&self, block: u64) -> io::Result<(u8, Vec<u8>)> {
        ask(self.address(), &self.request(block))
    }

    /// Checks a response that holds a block.
    #[track_caller]
    fn assert_block(&self, block: u64, response: io::Result<(u8, Vec<u8>)>) {
        let (status, body) = response.expect("a response");
        assert_eq!(status, 0, "{}", String::from_utf8_lossy(&body));
        assert!(Some(&body[..]) == self.sample.block(block), "block {block}");
    }

    /// Checks that it still serves, as if nothing had happened.
    #[track_caller]
    fn assert_alive(&self) {
        self.assert_block(2, self.ask(2));
    }
}

/// Checks a response that is a message: with this status, and with a newline at its end.
#[track_caller]
fn assert_message(response: io::Result<(u8, Vec<u8>)>, status: u8) {
    let (got, body) = response.expect("a response");
    let text = String::from_utf8(body).expect("messages are UTF-8");
    assert_eq!(got, status, "{text}");
    assert!(text.ends_with('\n') && text.len() > 1, "{text:?}");
}

#[test]
fn a_block_is_answered_as_the_protocol_writes_it() {
    let serving = Serving::new();
    let mut stream = connect(serving.address());
    // Block 20 is the last one, of 100 bytes.
    let mut golden = b"CASCADE1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x14".to_vec();
    golden.extend_from_slice(&serving.sample.hash());
    stream.write_all(&golden).expect("a request");
    let mut answer = [0; 109];
    stream.read_exact(&mut answer).expect("a response");
    assert_eq!(&answer[..9], b"\0\0\0\0\0\0\0\0\x64");
    assert!(answer[9..] == serving.sample.bytes[20 * BLOCK..]);
    serving.peer.stop();
}

#[test]
fn a_request_that_comes_byte_by_byte_is_answered() {
    let serving = Serving::new();
    let mut stream = connect(serving.address());
    for byte in serving.request(3) {
        stream.write_all(&[byte]).expect("a byte of a request");
    }
    serving.assert_block(3, response(&mut stream));
}

#[test]
fn garbage_in_the_reserved_bytes_means_nothing() {
    let serving = Serving::new();
    for garbage in [
        [0xff; 16],
        *b"CSX0\0\0\0\x01garbage!",
        *b"\0CSX1\0\0\0\x01.......",
    ] {
        let request = request_with(&serving.sample.hash(), 5, garbage);
        serving.assert_block(5, ask(serving.address(), &request));
    }
}

#[test]
fn a_client_that_reads_the_header_with_a_single_recv_gets_all_of_it() {
    let serving = Serving::new();
    for round in 0..50 {
        let mut stream = connect(serving.address());
        // A block, and a message.
        let block = if round % 2 == 0 { 1 } else { 1000 };
        stream
            .write_all(&serving.request(block))
            .expect("a request");
        let mut buffer = [0; 64 << 10];
        let n = stream.read(&mut buffer).expect("a response");
        assert!(n >= 9, "the header came in parts: {n} bytes");
    }
}

#[test]
fn requests_that_are_sent_ahead_are_answered_in_order() {
    let serving = Serving::new();
    let mut stream = connect(serving.address());
    let order = [7, 0, 20, 7, 13, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12];
    let all: Vec<u8> = order
        .iter()
        .flat_map(|block| serving.request(*block))
        .collect();
    stream.write_all(&all).expect("sixteen requests");
    for block in order {
        serving.assert_block(block, response(&mut stream));
    }
}

#[test]
fn a_client_that_half_closes_after_its_request_receives_the_full_reply() {
    let large = Sample::new("data", 8 << 20, 4 << 20);
    let serving = Serving::of(large, |_| {});
    let mut stream = connect(serving.address());
    stream.write_all(&serving.request(1)).expect("a request");
    stream.shutdown(Shutdown::Write).expect("a half-close");
    serving.assert_block(1, response(&mut stream));
    assert_closed(stream);
}

#[test]
fn a_client_that_reads_to_the_end_of_the_connection_gets_there() {
    let serving = Serving::new();
    let mut stream = connect(serving.address());
    let begin = Instant::now();
    stream.write_all(&serving.request(4)).expect("a request");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("a close, no reset");
    assert_eq!(bytes.len(), 9 + BLOCK);
    let took = begin.elapsed();
    assert!(
        (IDLE / 2..2 * IDLE).contains(&took),
        "closed after {took:?}"
    );
}

#[test]
fn a_client_that_reads_by_line_gets_to_the_end_of_a_message_at_once() {
    let serving = Serving::of(Sample::new("data", 20 * BLOCK, BLOCK), |bytes| {
        bytes[5 * BLOCK..6 * BLOCK].fill(0);
    });
    let mut unknown = serving.request(0);
    unknown[40] ^= 1;
    // A block that is not there, one that cannot be, an unknown file, and no request at all.
    let cases = [
        serving.request(5),
        serving.request(77),
        unknown,
        vec![b'x'; 64],
    ];
    for (request, status) in cases.iter().zip([2, 3, 1, 4]) {
        let mut stream = connect(serving.address());
        let begin = Instant::now();
        stream.write_all(request).expect("a request");
        let mut line = Vec::new();
        BufReader::new(stream)
            .read_until(b'\n', &mut line)
            .expect("a line");
        assert_eq!(line.first(), Some(&status));
        assert!(line.ends_with(b"\n"), "{line:02x?}");
        assert!(begin.elapsed() < IDLE / 2, "not at once");
    }
}

#[test]
fn a_client_that_reads_blocks_by_line_is_freed_by_the_close() {
    let serving = Serving::of(Sample::of("data", vec![b'b'; 3 * BLOCK], BLOCK), |_| {});
    let mut stream = connect(serving.address());
    stream.write_all(&serving.request(1)).expect("a request");
    let begin = Instant::now();
    let mut line = Vec::new();
    // There is no newline, neither in the header nor in the block.
    BufReader::new(stream)
        .read_until(b'\n', &mut line)
        .expect("a close, no reset");
    assert_eq!(line.len(), 9 + BLOCK);
    assert!(begin.elapsed() < 2 * IDLE, "it had to wait too long");
}

#[test]
fn a_connection_stays_open_for_the_next_request_after_a_block_and_after_not_present() {
    let serving = Serving::of(Sample::new("data", 20 * BLOCK, BLOCK), |bytes| {
        bytes.truncate(10 * BLOCK);
    });
    let mut stream = connect(serving.address());
    let mut ask = |block| {
        stream
            .write_all(&serving.request(block))
            .expect("a request");
        response(&mut stream)
    };
    serving.assert_block(9, ask(9));
    assert_message(ask(10), 2);
    assert_message(ask(19), 2);
    serving.assert_block(3, ask(3));
}

#[test]
fn a_connection_is_closed_after_an_error_and_the_message_arrives() {
    let serving = Serving::new();
    let mut unknown = serving.request(0);
    unknown[63] ^= 1;
    let mut both = serving.request(0);
    both[8..24].copy_from_slice(&extension(3));
    let cases = [
        (unknown, 1),
        (serving.request(21), 3),
        (serving.request(u64::MAX), 3),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 4),
        (vec![0; 64], 4),
        (both, 4),
    ];
    for (request, status) in cases {
        let mut stream = connect(serving.address());
        // More follows, which must not turn the message into a reset.
        stream.write_all(&request).expect("a request");
        stream
            .write_all(&serving.request(0))
            .expect("another request");
        assert_message(response(&mut stream), status);
        assert_closed(stream);
    }
    serving.assert_alive();
}

#[test]
fn a_request_that_ends_too_early_is_answered_with_status_4() {
    let serving = Serving::new();
    let mut stream = connect(serving.address());
    stream
        .write_all(&serving.request(1)[..63])
        .expect("most of a request");
    stream.shutdown(Shutdown::Write).expect("a half-close");
    assert_message(response(&mut stream), 4);
    assert_closed(stream);
}

#[test]
fn a_client_that_goes_without_a_word_is_no_harm() {
    let serving = Serving::new();
    for _ in 0..20 {
        drop(connect(serving.address()));
    }
    serving.assert_alive();
    serving.peer.stop();
}

#[test]
fn a_client_that_resets_in_the_middle_of_a_block_is_no_harm() {
    let serving = Serving::of(Sample::new("data", 32 << 20, 8 << 20), |_| {});
    for _ in 0..5 {
        let mut stream = connect(serving.address());
        stream.write_all(&serving.request(1)).expect("a request");
        let mut some = [0; 4096];
        stream
            .read_exact(&mut some)
            .expect("the beginning of a block");
        // Closed with input unread: a reset.
        drop(stream);
    }
    serving.assert_alive();
    let scene = &serving.scene;
    // One child may still be on its way out.
    eventually("the children are gone", || scene.left().len() <= 2);
    assert!(!serving.peer.stop().stderr.contains("panicked"));
}

#[test]
fn the_extensions_are_answered_as_the_protocol_writes_them() {
    // 12 blocks, of which 1, 10 and 11 are missing.
    let sample = Sample::new("data", 12 * BLOCK, BLOCK);
    let serving = Serving::of(sample, |bytes| {
        bytes[BLOCK..2 * BLOCK].fill(0);
        bytes.truncate(10 * BLOCK);
    });
    let hash = serving.sample.hash();
    let mut stream = connect(serving.address());
    let mut ask = |flags| {
        stream
            .write_all(&request_with(&hash, 0, extension(flags)))
            .expect("a request");
        response(&mut stream).expect("a response")
    };
    // The connection stays open after each; flags that are not known are ignored.
    assert_eq!(ask(1), (5, vec![0b1011_1111, 0b1100_0000]));
    assert_eq!(ask(2), (6, serving.sample.cascade.clone()));
    assert_eq!(ask(0x8000_0001), (5, vec![0b1011_1111, 0b1100_0000]));
    serving.assert_block(0, Ok(ask(0)));
    serving.assert_block(0, Ok(ask(4)));
}

#[test]
fn the_map_of_a_complete_file_is_empty() {
    let serving = Serving::new();
    let request = request_with(&serving.sample.hash(), 0, extension(1));
    let answer = ask(serving.address(), &request).expect("a response");
    assert_eq!(answer, (5, Vec::new()));
}

#[test]
fn the_extensions_of_an_unknown_file_are_status_1() {
    let serving = Serving::new();
    for flags in [1, 2] {
        let request = request_with(&[7; 32], 0, extension(flags));
        assert_message(ask(serving.address(), &request), 1);
    }
}

#[test]
fn many_clients_are_served_at_once() {
    let serving = Serving::new();
    let mut streams: Vec<TcpStream> = (0..30).map(|_| connect(serving.address())).collect();
    // All are connected, none has asked: nobody waits for anybody.
    for (block, stream) in streams.iter_mut().enumerate().rev() {
        let block = block as u64 % 21;
        stream
            .write_all(&serving.request(block))
            .expect("a request");
        serving.assert_block(block, response(stream));
    }
}

#[test]
fn a_data_file_that_was_cut_while_it_is_served_yields_no_wrong_block() {
    let serving = Serving::new();
    let map = request_with(&serving.sample.hash(), 0, extension(1));
    eventually("all is verified", || {
        ask(serving.address(), &map).is_ok_and(|answer| answer == (5, Vec::new()))
    });
    let data = fs::File::options()
        .write(true)
        .open(serving.scene.path("data"))
        .expect("the data file");
    data.set_len(5 * BLOCK as u64 + 10).expect("it can be cut");
    // A block that is not there any more: a message, or a close.
    match serving.ask(5) {
        Ok((status, body)) => assert_ne!(status, 0, "served as block 5: {body:02x?}"),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
    }
    // Nothing is believed of a file that somebody wrote to, until it is verified again.
    eventually("what is still right is served", || {
        matches!(serving.ask(0), Ok((0, _)))
    });
    serving.assert_alive();
    serving.peer.stop();
}

#[test]
fn sigterm_lets_a_transfer_finish() {
    let serving = Serving::of(Sample::new("data", 64 << 20, 32 << 20), |_| {});
    let mut stream = connect(serving.address());
    stream.write_all(&serving.request(1)).expect("a request");
    let mut header = [0; 9];
    stream
        .read_exact(&mut header)
        .expect("the transfer has begun");
    let (sample, peer) = (serving.sample, serving.peer);
    let reader = std::thread::spawn(move || {
        let mut body = vec![0; 32 << 20];
        stream.read_exact(&mut body).map(|()| body)
    });
    peer.stop();
    let body = reader.join().expect("no panic").expect("all of the block");
    assert!(Some(&body[..]) == sample.block(1));
}

#[test]
fn blocks_are_served_while_others_are_still_missing() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 20 * BLOCK, BLOCK));
    let cascade = sample.write_cascade(&scene.path(""));
    let source = peers::start_with(
        common::standin::Accepts::Together,
        &sample,
        peers::stalls_after(8),
    );
    let peer = scene
        .cascade("peer")
        .peer(source.address())
        .args(["-l", "127.0.0.1:0"])
        .arg(cascade)
        .serve();
    let served = |block: &u64| {
        let answer = ask(peer.address(), &request(&sample.hash(), *block)).expect("a response");
        assert!(answer.0 == 2 || Some(&answer.1[..]) == sample.block(*block));
        answer.0 == 0
    };
    eventually("eight blocks are served", || {
        sample.all().iter().filter(|block| served(block)).count() == 8
    });
    peer.stop();
}

#[test]
fn sigterm_ends_a_connection_whose_client_never_pauses() {
    let serving = Serving::of(Sample::new("data", 1 << 20, 64 << 10), |_| {});
    let mut stream = connect(serving.address());
    let mut reading = stream.try_clone().expect("a second descriptor");
    let requests = serving.request(3).repeat(64);
    // Asks until nobody takes requests any more, and reads whatever comes.
    let asking = std::thread::spawn(move || while stream.write_all(&requests).is_ok() {});
    let mut some = vec![0; 1 << 20];
    reading
        .read_exact(&mut some)
        .expect("transfers are under way");
    let reader =
        std::thread::spawn(move || while matches!(reading.read(&mut some), Ok(n) if n > 0) {});
    let stopped = serving.peer.stop();
    stopped
        .assert_within(std::time::Duration::from_secs(5))
        .assert_no_error();
    asking.join().expect("the asking ended");
    reader.join().expect("the reading ended");
}
