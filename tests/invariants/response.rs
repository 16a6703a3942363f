//! A peer's responses, as a download takes them in: lengths that are not believed, blocks that are not trusted.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use cascade::cascade_file::{CascadeFile, Geometry};
use cascade::download::landing::{Landing, PIECE};
use cascade::download::report::GiveUp;
use cascade::download::response::{Incoming, Step};
use cascade::hash::{BlockHash, FileHash};
use cascade::wire::MAX_MESSAGE;
use cascade::wire::peer::{ResponseHeader, Status};

use super::{cut, number};

/// A file that is downloaded.
struct World {
    data: Vec<u8>,
    cascade: CascadeFile,
    /// So many blocks are asked for, in turn.
    asked: usize,
    /// The shortest piece in which a stream arrives.
    shortest: usize,
}

/// The bytes of a map of the blocks, which are few.
const MAP: u64 = 1;

/// Blocks that are found by chance as well as by their hash.
static SHORT: LazyLock<World> =
    LazyLock::new(|| World::new(b"abcabcdefg".to_vec(), 3, usize::MAX, 1));

/// Blocks that are not held in memory as a whole: such a one is written as it comes in, and asked for once.
static LONG: LazyLock<World> = LazyLock::new(|| {
    let size = PIECE + 3;
    let byte = |at: usize| ((at * at) >> 3) as u8 | 1;
    World::new((0..size + 5).map(byte).collect(), size, 2, 4093)
});

impl World {
    fn new(data: Vec<u8>, block_size: usize, asked: usize, shortest: usize) -> Self {
        let geometry = Geometry::new(data.len() as u64, block_size as u64);
        let hashes = data.chunks(block_size).map(BlockHash::of).collect();
        let geometry = geometry.expect("a geometry that is allowed");
        Self {
            cascade: CascadeFile::new(geometry, FileHash::of(&data), hashes),
            data,
            asked,
            shortest,
        }
    }

    fn blocks(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let size = self.cascade.geometry().block_size();
        self.data.chunks(size as usize)
    }
}

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
    check(&SHORT, stream, pieces);
}

/// The same of blocks of more than a MiB, which nobody makes up: after [`RUN`] the input says how many bytes of the
/// data follow. (An input that is short makes at most 4 MiB.)
pub fn long_response(input: &[u8]) {
    let (written, cuts) = cut(input);
    let stream = spelt_out(written);
    let mut left = &stream[..];
    let mut pieces = Vec::new();
    for cut in cuts {
        let (piece, after) = left.split_at(left.len().min(cut.len() << 12));
        pieces.push(piece);
        left = after;
    }
    pieces.push(left);
    pieces.retain(|piece| !piece.is_empty());
    check(&LONG, &stream, pieces);
}

/// Where a run of the data begins: where it lies and how long it is follow, three bytes each.
const RUN: u8 = 0xda;
/// No stream becomes longer.
const LONGEST: usize = 4 << 20;

fn spelt_out(mut written: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    while let Some((byte, rest)) = written.split_first() {
        let run = rest.split_first_chunk::<6>().filter(|_| *byte == RUN);
        let Some((run, after)) = run else {
            stream.push(*byte);
            written = rest;
            continue;
        };
        let (from, length) = (number(run, 0, 3) as usize, number(run, 3, 3) as usize);
        let data = LONG.data.iter().skip(from).take(length);
        stream.extend(data.take(LONGEST.saturating_sub(stream.len())));
        written = after;
    }
    stream
}

fn check(world: &World, stream: &[u8], pieces: Vec<&[u8]>) {
    let expected = expected(world, stream);
    let short: Vec<&[u8]> = stream.chunks(world.shortest).collect();
    for pieces in [pieces, short, vec![stream]] {
        SCRATCH.with(|data| {
            data.set_len(0).expect("an empty file");
            assert_eq!(taken_in(world, &pieces, data), expected);
            assert_written(world, data, &expected);
        });
    }
}

thread_local! {
    /// The data file, which is emptied for each download.
    static SCRATCH: File = tempfile::tempfile().expect("a file");
}

/// By the words of PROTOCOL §3 and §5, from the whole stream.
fn expected(world: &World, mut stream: &[u8]) -> Vec<Learnt> {
    let mut all = Vec::new();
    for (asked, right) in world.blocks().enumerate().cycle().take(world.asked) {
        if stream.len() < 9 {
            all.push(Learnt::Closed(!stream.is_empty()));
            return all;
        }
        let (status, length) = (stream[0], number(stream, 1, 8));
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
fn taken_in(world: &World, pieces: &[&[u8]], data: &File) -> Vec<Learnt> {
    let mut incoming = Incoming::default();
    let mut landing = Landing::new(&world.cascade, data);
    let mut arriving = Arriving {
        pieces: pieces.iter().copied().collect(),
        pause: false,
    };
    let mut all = Vec::new();
    let blocks = world.cascade.geometry().blocks() as usize;
    while all.len() < world.asked {
        let asked = all.len() % blocks;
        let step = incoming.read(&mut arriving, &mut landing, u64::MAX);
        let learnt = match step {
            Ok(Step::Wait | Step::More) => continue,
            Ok(Step::Header(header)) => {
                if expect(world, &mut incoming, &mut landing, header, asked) {
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
            break;
        }
    }
    landing.take_landed().expect("a file that is written");
    all
}

/// What a worker does with a header; `false` where it gives up.
fn expect(
    world: &World,
    incoming: &mut Incoming,
    landing: &mut Landing<'_>,
    header: ResponseHeader,
    asked: usize,
) -> bool {
    let length = world.cascade.geometry().block_length(asked as u32);
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

fn assert_written(world: &World, data: &File, learnt: &[Learnt]) {
    let mut offset = 0;
    for (block, right) in world.blocks().enumerate() {
        let mut there = vec![0; right.len()];
        // What lies beyond the end was never written.
        let _ = data.read_exact_at(&mut there, offset);
        let fetched = learnt.contains(&Learnt::Block(block));
        assert_eq!(there == right, fetched, "block {block}");
        offset += right.len() as u64;
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
