//! A question to a peer that is no request for a block: its map, or a cascade file. PROTOCOL §5.
//!
//! It blocks, within its times, so it is for a process that has nothing else to do: one that asks one peer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::hash::CascadeHash;
use crate::net::connect::{self, NotConnected};
use crate::wire::peer::{
    Extension, MAX_META, RESPONSE_HEADER_LEN, Request, ResponseHeader, Status,
};

/// How long a connect may wait (PROTOCOL §4: no failure before 10 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(12);
/// How long a peer that owes an answer may send nothing.
const SILENCE: Duration = Duration::from_secs(20);
/// A whole answer may take so long, and longer the longer it is: a peer that drips is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 32 << 10;
/// How much is read at once.
const READ: usize = 64 << 10;
/// The longest map, in bytes, of a file of which nobody knows how many blocks it has.
const LONGEST_MAP: u64 = 1 << 20;
/// A peer that sends a block instead is let send so much of it, for so long: some end where a client breaks off.
const BLOCK: u64 = 4 << 20;
const BLOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Why a peer did not answer as asked.
#[derive(Debug, Error)]
pub enum Unanswered {
    /// No connection.
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    /// The connection broke, or the peer was silent, or too slow.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// The connection ended within the answer.
    #[error("it sent less than it announced")]
    Short,
    /// It does not have the file.
    #[error("it does not have the file")]
    UnknownHash,
    /// It took the question for another, or for none.
    #[error("it does not know the extension")]
    NoExtension,
    /// It closed the connection at the first question: it does not know the extension, or has no room, or ends.
    #[error("it closed the connection")]
    Closed,
    /// It announced more than there can be.
    #[error("it announced {0} bytes")]
    TooLong(u64),
    /// It answered what nobody asked.
    #[error("it answered with status {0}")]
    Nonsense(u8),
}

/// A connection for questions.
#[derive(Debug)]
pub struct Conversation {
    stream: TcpStream,
    /// Whether the peer has answered on it.
    answered: bool,
}

impl Conversation {
    /// Connects.
    ///
    /// # Errors
    /// Where there is no connection in time.
    pub fn begin(addresses: &[SocketAddr]) -> Result<Self, Unanswered> {
        let connect = || {
            let connected = connect::to_first(addresses, CONNECT_TIMEOUT);
            let (stream, _) = connected.map_err(NotConnected::into_error)?;
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(SILENCE))?;
            Ok(stream)
        };
        let stream = connect().map_err(Unanswered::Unreachable)?;
        Ok(Self {
            stream,
            answered: false,
        })
    }

    /// Asks for the map of a file of so many blocks, where that is known. Nothing of it is believed yet.
    ///
    /// # Errors
    /// Where the peer does not answer, or answers something else. The connection is of no more use then.
    pub fn ask_map(
        &mut self,
        hash: CascadeHash,
        blocks: Option<u32>,
    ) -> Result<Vec<u8>, Unanswered> {
        let most = blocks.map_or(LONGEST_MAP, |blocks| u64::from(blocks.div_ceil(8)));
        // A peer without the extension sends the block that is named: the last is never longer than another.
        let block = blocks.map_or(0, |blocks| blocks.saturating_sub(1));
        self.ask(hash, Extension::Map, block.into(), most, || {})
    }

    /// Asks for the cascade file; calls `heard` when the answer begins.
    ///
    /// # Errors
    /// As [`Conversation::ask_map`].
    pub fn ask_meta(
        &mut self,
        hash: CascadeHash,
        heard: impl FnOnce(),
    ) -> Result<Vec<u8>, Unanswered> {
        self.ask(hash, Extension::Meta, 0, MAX_META, heard)
    }

    fn ask(
        &mut self,
        hash: CascadeHash,
        extension: Extension,
        block: u64,
        most: u64,
        heard: impl FnOnce(),
    ) -> Result<Vec<u8>, Unanswered> {
        let expected = match extension {
            Extension::Map => Status::Map,
            Extension::Meta => Status::Meta,
        };
        let header = self.exchange_headers(hash, extension, block)?;
        heard();
        match header.status {
            status if status == expected && header.length > most => {
                Err(Unanswered::TooLong(header.length))
            }
            status if status == expected => {
                self.body(header.length)
                    .map_err(|error| match is_close(&error) {
                        true => Unanswered::Short,
                        false => Unanswered::Broken(error),
                    })
            }
            Status::UnknownHash => Err(Unanswered::UnknownHash),
            // The block that the question names.
            Status::Success => {
                self.let_send(header.length);
                Err(Unanswered::NoExtension)
            }
            // Its absence; or a request that could not be parsed.
            Status::NotPresent | Status::BadRequest => Err(Unanswered::NoExtension),
            other => Err(Unanswered::Nonsense(other.into())),
        }
    }

    fn exchange_headers(
        &mut self,
        hash: CascadeHash,
        extension: Extension,
        block: u64,
    ) -> Result<ResponseHeader, Unanswered> {
        let request = Request {
            hash,
            block,
            extension: Some(extension),
        };
        let mut bytes = [0; RESPONSE_HEADER_LEN];
        let mut filled = 0;
        let deadline = Instant::now() + SILENCE;
        let mut exchange = || {
            self.stream.write_all(&request.encode())?;
            while filled < bytes.len() {
                filled += read(&mut self.stream, &mut bytes[filled..], deadline)?;
            }
            Ok(())
        };
        match (exchange(), ResponseHeader::decode(&bytes)) {
            (Ok(()), Some(header)) => {
                self.answered = true;
                Ok(header)
            }
            // A close instead of the first answer.
            (Err(error), _) if filled == 0 && !self.answered && is_close(&error) => {
                Err(Unanswered::Closed)
            }
            (Err(error), _) => Err(Unanswered::Broken(error)),
            (Ok(()), None) => Err(Unanswered::Broken(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Reads what nobody asked for, within reason.
    fn let_send(&mut self, length: u64) {
        let deadline = Instant::now() + BLOCK_PATIENCE;
        let (mut left, mut buffer) = (length.min(BLOCK), vec![0; READ]);
        while left > 0 {
            let part = left.min(READ as u64) as usize;
            match read(&mut self.stream, &mut buffer[..part], deadline) {
                Ok(n) => left -= n as u64,
                Err(_) => return,
            }
        }
    }

    /// Memory is taken as the bytes arrive, not as they are announced.
    fn body(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let most = Instant::now() + PATIENCE + Duration::from_secs(length / SLOWEST);
        let (mut body, mut buffer) = (Vec::new(), vec![0; READ]);
        while (body.len() as u64) < length {
            let left = (length - body.len() as u64).min(READ as u64) as usize;
            let deadline = most.min(Instant::now() + SILENCE);
            let n = read(&mut self.stream, &mut buffer[..left], deadline)?;
            body.extend_from_slice(&buffer[..n]);
        }
        Ok(body)
    }
}

/// Reads at least one byte before the deadline.
fn read(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => return Ok(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_close(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}
