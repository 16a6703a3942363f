//! A response as it comes in: the header, then the body in pieces. PROTOCOL §3.
//!
//! Whatever the block size, at most [`PIECE`] bytes of it are in memory. A block up to that size is written only when
//! it is verified; a longer one is written piece by piece, and counts as present only when all of it is verified.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::plan::Failure;
use super::report::{Reason, ReasonKind};
use crate::cascade_file::CascadeFile;
use crate::hash::BlockHash;
use crate::wire::peer::{RESPONSE_HEADER_LEN, ResponseHeader, Status};

/// The most of a block that is held in memory.
pub const PIECE: usize = 1 << 20;
/// The most that is received at once: what was received is hashed while it is still in the processor's cache.
const RECEIVE: usize = 256 << 10;

/// Why a worker gives up its peer, or itself.
#[derive(Debug)]
pub struct GiveUp(pub Failure, pub Reason);

impl GiveUp {
    /// The peer said something that makes no sense.
    pub fn lied(kind: ReasonKind, number: u32) -> Self {
        Self(Failure::Lied, Reason::new(kind, number))
    }
}

/// What a read from the connection led to.
#[derive(Debug)]
pub enum Step {
    /// Nothing has arrived.
    Wait,
    /// Something, but no whole response yet.
    More,
    /// The connection ended; `true` within a response.
    Closed(bool),
    /// The header is there: what follows has to be decided.
    Header(ResponseHeader),
    /// The block is verified and written.
    Block,
    /// The map.
    Map(Vec<u8>),
    /// The message of a status that is none of these was read and forgotten.
    Message,
}

/// The response that is coming in.
#[derive(Debug)]
pub struct Incoming {
    state: State,
    /// The header, and pieces of blocks.
    buffer: Vec<u8>,
    /// Bytes of blocks that were received and not counted yet.
    of_blocks: u64,
    last_read: usize,
    /// What a wrong block was instead.
    mismatch: Option<BlockHash>,
}

#[derive(Debug)]
enum State {
    Header { filled: usize },
    Block(Block),
    Map { map: Vec<u8>, filled: usize },
    Message { left: u64 },
}

#[derive(Debug)]
struct Block {
    number: u32,
    length: u64,
    /// Bytes that were received.
    received: u64,
    /// Bytes of these that are in the buffer, not in the file.
    buffered: usize,
    hasher: Sha256,
}

impl Default for Incoming {
    fn default() -> Self {
        Self {
            state: State::Header { filled: 0 },
            buffer: vec![0; RESPONSE_HEADER_LEN],
            of_blocks: 0,
            last_read: 0,
            mismatch: None,
        }
    }
}

impl Incoming {
    /// Whether no byte of a response has arrived.
    pub fn is_between_responses(&self) -> bool {
        matches!(self.state, State::Header { filled: 0 })
    }

    /// How many bytes of blocks were received since this was asked last.
    pub fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.of_blocks)
    }

    /// The hash of the block that came and was not the right one.
    pub fn mismatch(&self) -> Option<BlockHash> {
        self.mismatch
    }

    /// The body that follows is the block `number`.
    pub fn expect_block(&mut self, number: u32, length: u64) {
        let room = length.min(PIECE as u64) as usize;
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        self.state = State::Block(Block {
            number,
            length,
            received: 0,
            buffered: 0,
            hasher: Sha256::new(),
        });
    }

    /// The body that follows is a map of this length, which the caller has checked.
    pub fn expect_map(&mut self, length: usize) {
        self.state = State::Map {
            map: vec![0; length],
            filled: 0,
        };
    }

    /// The body that follows is a message of this length.
    pub fn expect_message(&mut self, length: u64) {
        self.state = State::Message { left: length };
    }

    /// How many bytes the last read brought.
    pub fn last_read(&self) -> u64 {
        self.last_read as u64
    }

    /// Reads once, at most `most` bytes, or not at all where the body has come to its end.
    ///
    /// # Errors
    /// Where a block is wrong or cannot be written.
    pub fn read(
        &mut self,
        mut stream: impl Read,
        cascade: &CascadeFile,
        data: &File,
        most: u64,
    ) -> Result<Step, GiveUp> {
        self.last_read = 0;
        if let Some(step) = self.finished(cascade, data)? {
            return Ok(step);
        }
        let read = match &mut self.state {
            State::Header { filled } => stream.read(&mut self.buffer[*filled..RESPONSE_HEADER_LEN]),
            State::Block(block) => {
                let left = block.length - block.received;
                let end = (block.buffered as u64 + left)
                    .min((block.buffered + RECEIVE) as u64)
                    .min((block.buffered as u64).saturating_add(most))
                    .min(PIECE as u64);
                stream.read(&mut self.buffer[block.buffered..end as usize])
            }
            State::Map { map, filled } => stream.read(&mut map[*filled..]),
            State::Message { left } => {
                let room = (*left).min(crate::wire::MAX_MESSAGE) as usize;
                let mut forgotten = [0; crate::wire::MAX_MESSAGE as usize];
                stream.read(&mut forgotten[..room])
            }
        };
        match read {
            Ok(0) => Ok(Step::Closed(!self.is_between_responses())),
            Ok(n) => {
                self.last_read = n;
                self.received(n, cascade, data)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Wait),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Step::More),
            Err(_) => Ok(Step::Closed(!self.is_between_responses())),
        }
    }

    fn received(&mut self, n: usize, cascade: &CascadeFile, data: &File) -> Result<Step, GiveUp> {
        match &mut self.state {
            State::Header { filled } => *filled += n,
            State::Block(block) => {
                block
                    .hasher
                    .update(&self.buffer[block.buffered..block.buffered + n]);
                block.buffered += n;
                block.received += n as u64;
                self.of_blocks += n as u64;
                if block.buffered == PIECE && block.length > PIECE as u64 {
                    block.write(&self.buffer, cascade, data)?;
                }
            }
            State::Map { filled, .. } => *filled += n,
            State::Message { left } => *left -= n as u64,
        }
        Ok(self.finished(cascade, data)?.unwrap_or(Step::More))
    }

    /// What is complete, if anything; afterwards the next header is expected.
    fn finished(&mut self, cascade: &CascadeFile, data: &File) -> Result<Option<Step>, GiveUp> {
        let step = match &mut self.state {
            State::Header { filled } if *filled == RESPONSE_HEADER_LEN => {
                match ResponseHeader::decode(&self.buffer[..RESPONSE_HEADER_LEN]) {
                    Some(header) => Step::Header(header),
                    None => return Ok(None),
                }
            }
            State::Block(block) if block.received == block.length => {
                if let Err(hash) = block.check(cascade) {
                    let number = block.number;
                    self.mismatch = Some(hash);
                    return Err(GiveUp::lied(ReasonKind::WrongBlock, number));
                }
                block.write(&self.buffer, cascade, data)?;
                Step::Block
            }
            State::Map { map, filled } if *filled == map.len() => Step::Map(std::mem::take(map)),
            State::Message { left: 0 } => Step::Message,
            _ => return Ok(None),
        };
        self.state = State::Header { filled: 0 };
        Ok(Some(step))
    }
}

impl Block {
    /// Writes what is in the buffer to where it belongs.
    fn write(&mut self, buffer: &[u8], cascade: &CascadeFile, data: &File) -> Result<(), GiveUp> {
        let start = u64::from(self.number) * cascade.geometry().block_size();
        let offset = start + self.received - self.buffered as u64;
        data.write_all_at(&buffer[..self.buffered], offset)
            .map_err(|error| {
                let errno = error.raw_os_error().unwrap_or(0);
                GiveUp(
                    Failure::Ours,
                    Reason {
                        kind: ReasonKind::CannotWrite,
                        number: self.number,
                        errno,
                    },
                )
            })?;
        self.buffered = 0;
        Ok(())
    }

    /// Compares the hash of the whole block; where it is another, answers which.
    fn check(&mut self, cascade: &CascadeFile) -> Result<(), BlockHash> {
        let hash = BlockHash::finish(std::mem::take(&mut self.hasher));
        let right = cascade.block_hashes().get(self.number as usize) == Some(&hash);
        if right { Ok(()) } else { Err(hash) }
    }
}

/// The status of a header as the number that it had on the wire.
pub fn status_number(status: Status) -> u32 {
    u8::from(status).into()
}
