//! A response as it comes in: the header, then the body in pieces. PROTOCOL §3.
//!
//! Whatever the block size, at most [`super::landing::PIECE`] bytes of it are in memory. A block up to that size is
//! written only when it is verified; a longer one is written piece by piece, and counts as present only when all of it
//! is verified. Of small blocks many responses are read at once.

use std::io::{self, Read};

use super::landing::{Block, Landing};
use super::reason::ReasonKind;
use super::report::GiveUp;
use crate::hash::BlockHash;
use crate::wire::peer::{RESPONSE_HEADER_LEN, ResponseHeader};

/// The most that is received at once: what was received is hashed while it is still in the processor's cache.
const RECEIVE: usize = 256 << 10;
/// The most that is received at once where blocks are small.
const AHEAD: usize = 64 << 10;

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
    /// The block is verified, and has landed.
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
    header: [u8; RESPONSE_HEADER_LEN],
    ahead: Ahead,
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

impl Default for Incoming {
    fn default() -> Self {
        Self {
            state: State::Header { filled: 0 },
            header: [0; RESPONSE_HEADER_LEN],
            ahead: Ahead::default(),
            of_blocks: 0,
            last_read: 0,
            mismatch: None,
        }
    }
}

impl Incoming {
    /// Whether no byte of a response has arrived.
    pub fn is_between_responses(&self) -> bool {
        matches!(self.state, State::Header { filled: 0 }) && !self.has_more()
    }

    /// Whether something was received that is still to be looked at.
    pub fn has_more(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// How many bytes of blocks were received since this was asked last.
    pub fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.of_blocks)
    }

    /// The hash of the block that came and was not the right one.
    pub fn mismatch(&self) -> Option<BlockHash> {
        self.mismatch
    }

    /// The body that follows is this block.
    pub fn expect_block(&mut self, block: Block) {
        self.state = State::Block(block);
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

    /// How many bytes the last read took from the connection.
    pub fn last_read(&self) -> u64 {
        self.last_read as u64
    }

    /// Reads once, at most `most` bytes, or not at all where the body has come to its end or was received already.
    ///
    /// # Errors
    /// Where a block is wrong or cannot be written.
    pub fn read(
        &mut self,
        stream: impl Read,
        landing: &mut Landing<'_>,
        most: u64,
    ) -> Result<Step, GiveUp> {
        self.last_read = 0;
        if let Some(step) = self.finished(landing)? {
            return Ok(step);
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let ahead = if landing.is_of_small_blocks() {
            AHEAD.min(most)
        } else {
            0
        };
        let mut forgotten = [0; crate::wire::MAX_MESSAGE as usize];
        let room = match &mut self.state {
            State::Header { filled } => &mut self.header[*filled..],
            State::Block(block) => {
                let room = landing.room(block);
                let end = room.len().min(RECEIVE).min(most);
                &mut room[..end]
            }
            State::Map { map, filled } => &mut map[*filled..],
            State::Message { left } => {
                &mut forgotten[..(*left).min(crate::wire::MAX_MESSAGE) as usize]
            }
        };
        match self.ahead.read(stream, room, ahead) {
            Ok(Taken { bytes: 0, .. }) => Ok(Step::Closed(!self.is_between_responses())),
            Ok(taken) => {
                self.last_read = taken.fresh;
                self.received(taken.bytes, landing)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Wait),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Step::More),
            Err(_) => Ok(Step::Closed(!self.is_between_responses())),
        }
    }

    fn received(&mut self, n: usize, landing: &mut Landing<'_>) -> Result<Step, GiveUp> {
        match &mut self.state {
            State::Header { filled } => *filled += n,
            State::Block(block) => {
                self.of_blocks += n as u64;
                landing.received(block, n)?;
            }
            State::Map { filled, .. } => *filled += n,
            State::Message { left } => *left -= n as u64,
        }
        Ok(self.finished(landing)?.unwrap_or(Step::More))
    }

    /// What is complete, if anything; afterwards the next header is expected.
    fn finished(&mut self, landing: &mut Landing<'_>) -> Result<Option<Step>, GiveUp> {
        let step = match &mut self.state {
            State::Header { filled } if *filled == RESPONSE_HEADER_LEN => {
                match ResponseHeader::decode(&self.header) {
                    Some(header) => Step::Header(header),
                    None => return Ok(None),
                }
            }
            State::Block(block) if block.is_whole() => {
                if let Err(hash) = landing.land(block)? {
                    let number = block.number;
                    self.mismatch = Some(hash);
                    return Err(GiveUp::lied(ReasonKind::WrongBlock, number));
                }
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

/// What was received before it was asked for: the beginning of the responses that follow.
#[derive(Debug, Default)]
struct Ahead {
    buffer: Vec<u8>,
    /// What of the buffer is still to be looked at.
    left: std::ops::Range<usize>,
}

/// What a read has brought.
struct Taken {
    /// Into the room that was given.
    bytes: usize,
    /// From the connection.
    fresh: usize,
}

impl Ahead {
    fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Fills `room` with what is there; where that is nothing, receives once: `ahead` bytes at most, if that is more
    /// than there is room for.
    fn read(&mut self, mut stream: impl Read, room: &mut [u8], ahead: usize) -> io::Result<Taken> {
        let mut fresh = 0;
        if self.is_empty() {
            if room.len() >= ahead {
                let n = stream.read(room)?;
                return Ok(Taken { bytes: n, fresh: n });
            }
            if self.buffer.len() < ahead {
                self.buffer.resize(ahead, 0);
            }
            fresh = stream.read(&mut self.buffer[..ahead])?;
            self.left = 0..fresh;
        }
        let bytes = room.len().min(self.left.len());
        room[..bytes].copy_from_slice(&self.buffer[self.left.start..self.left.start + bytes]);
        self.left.start += bytes;
        Ok(Taken { bytes, fresh })
    }
}
