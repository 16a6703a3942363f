//! A peer's responses, as a download takes them in: lengths that are not believed, blocks that are not trusted.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use cascade::cascade_file::{CascadeFile, Geometry};
use cascade::download::landing::Landing;
use cascade::download::report::GiveUp;
use cascade::download::response::{Incoming, Step};
use cascade::hash::{BlockHash, FileHash};
use cascade::wire::MAX_MESSAGE;
use cascade::wire::peer::{ResponseHeader, Status};

use super::{cut, number};

/// The data that is downloaded, in blocks that are found by chance as well as by their hash.
const DATA: &[u8] = b"abcabcdefg";
const BLOCK_SIZE: usize = 3;
const BLOCKS: usize = DATA.len().div_ceil(BLOCK_SIZE);
/// The bytes of a map of the blocks.
const MAP: u64 = 1;

static CASCADE: LazyLock<CascadeFile> = LazyLock::new(|| {
    let geometry =
        Geometry::new(DATA.len() as u64, BLOCK_SIZE as u64).expect("a geometry that is allowed");
    let hashes = DATA.chunks(BLOCK_SIZE).map(BlockHash::of).collect();
    CascadeFile::new(geometry, FileHash::of(DATA), hashes)
});

/// What a download learns of a connection, one after the other.
#[derive(Debug, PartialEq, Eq)]
enum Learnt {
    Block(usize),
    Map(Vec<u8>),
    Message,
    /// What came was not the block that was asked for.
    WrongBlock(usize),
    /// A header that leads nowhere.
    Senseless,
    /// The end; `true` within a response.
    Closed(bool),
}

/// What is learnt of a peer does not depend on how its responses were cut, and only right blocks are written.
/// The responses are to requests for the blocks in turn.
pub fn peer_response(input: &[u8]) {
    let (stream, pieces) = cut(input);
    let expected = expected(stream);
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    for pieces in [pieces, bytes, vec![stream]] {
        SCRATCH.with(|data| {
            data.set_len(0).expect("an empty file");
            assert_eq!(taken_in(&pieces, data), expected);
            assert_written(data, &expected);
        });
    }
}

thread_local! {
    /// The data file, which is emptied for each download.
    static SCRATCH: File = tempfile::tempfile().expect("a file");
}

/// By the words of PROTOCOL §3 and §5, from the whole stream.
fn expected(mut stream: &[u8]) -> Vec<Learnt> {
    let mut all = Vec::new();
    for asked in (0..BLOCKS).cycle() {
        if stream.len() < 9 {
            all.push(Learnt::Closed(!stream.is_empty()));
            return all;
        }
        let (status, length) = (stream[0], number(stream, 1, 8));
        let right = &DATA[asked * BLOCK_SIZE..DATA.len().min((asked + 1) * BLOCK_SIZE)];
        let believed = match status {
            0 => length == right.len() as u64,
            2 => length <= MAX_MESSAGE,
            5 => length == 0 || length == MAP,
            _ => false,
        };
        if !believed {
            all.push(Learnt::Senseless);
            return all;
        }
        let Some(body) = stream[9..].get(..length as usize) else {
            all.push(Learnt::Closed(true));
            return all;
        };
        stream = &stream[9 + body.len()..];
        all.push(match status {
            0 if body != right => Learnt::WrongBlock(asked),
            0 => Learnt::Block(asked),
            2 => Learnt::Message,
            _ => Learnt::Map(body.to_vec()),
        });
        if matches!(all.last(), Some(Learnt::WrongBlock(_))) {
            return all;
        }
    }
    all
}

/// The same from a connection on which the stream arrives in pieces.
fn taken_in(pieces: &[&[u8]], data: &File) -> Vec<Learnt> {
    let mut incoming = Incoming::default();
    let mut landing = Landing::new(&CASCADE, data);
    let mut arriving = Arriving {
        pieces: pieces.iter().copied().collect(),
        pause: false,
    };
    let mut all = Vec::new();
    let mut asked = 0;
    loop {
        let step = incoming.read(&mut arriving, &mut landing, u64::MAX);
        let learnt = match step {
            Ok(Step::Wait | Step::More) => continue,
            Ok(Step::Header(header)) => {
                if expect(&mut incoming, &mut landing, header, asked) {
                    continue;
                }
                Learnt::Senseless
            }
            Ok(Step::Block) => Learnt::Block(asked),
            Ok(Step::Map(map)) => Learnt::Map(map),
            Ok(Step::Message) => Learnt::Message,
            Ok(Step::Closed(within)) => Learnt::Closed(within),
            Err(GiveUp(..)) => Learnt::WrongBlock(asked),
        };
        let last = !matches!(learnt, Learnt::Block(_) | Learnt::Map(_) | Learnt::Message);
        all.push(learnt);
        if last {
            landing.take_landed().expect("a file that is written");
            return all;
        }
        asked = (asked + 1) % BLOCKS;
    }
}

/// What a worker does with a header; `false` where it gives up.
fn expect(
    incoming: &mut Incoming,
    landing: &mut Landing<'_>,
    header: ResponseHeader,
    asked: usize,
) -> bool {
    let length = CASCADE.geometry().block_length(asked as u32);
    match header.status {
        Status::Success if header.length == length => {
            let begun = landing.begin(asked as u32, length);
            incoming.expect_block(begun.expect("a file that is written"));
        }
        Status::NotPresent if header.length <= MAX_MESSAGE => {
            incoming.expect_message(header.length);
        }
        Status::Map if header.length == 0 || header.length == MAP => {
            incoming.expect_map(header.length as usize);
        }
        _ => return false,
    }
    true
}

fn assert_written(data: &File, learnt: &[Learnt]) {
    for (block, right) in DATA.chunks(BLOCK_SIZE).enumerate() {
        let mut there = vec![0; right.len()];
        // What lies beyond the end was never written.
        let _ = data.read_exact_at(&mut there, (block * BLOCK_SIZE) as u64);
        let fetched = learnt.contains(&Learnt::Block(block));
        assert_eq!(there == right, fetched, "block {block}: {there:?}");
    }
}

/// A stream in pieces, between which there is nothing for a moment.
struct Arriving<'a> {
    pieces: VecDeque<&'a [u8]>,
    pause: bool,
}

impl Read for Arriving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.pause) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(piece) = self.pieces.front_mut() else {
            return Ok(0);
        };
        let n = piece.read(buffer)?;
        if piece.is_empty() {
            self.pieces.pop_front();
            self.pause = true;
        }
        Ok(n)
    }
}
