//! Asking a tracker. PROTOCOL §2.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::wire::tracker::{PeerRecord, Request, Response, ResponseError};

/// Why a tracker gave no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// It cannot be reached, or the connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It closed the connection within its response.
    #[error("it closed the connection without an answer")]
    Closed,
    /// Its response is none.
    #[error("its answer makes no sense: {0}")]
    Senseless(#[from] ResponseError),
    /// It refused, in its own words (fit to be shown).
    #[error("it says: {0}")]
    Refused(String),
}

/// A connection to a tracker, for one request.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    deadline: Instant,
}

impl Connection {
    /// Connects; the whole exchange is over after `timeout`.
    ///
    /// # Errors
    /// As connect(2).
    pub fn open(tracker: SocketAddr, timeout: Duration) -> Result<Self, AskError> {
        let stream = TcpStream::connect_timeout(&tracker, timeout)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            deadline: Instant::now() + timeout,
        })
    }

    /// Our end of the connection: where others may find us.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Sends the request in one write and reads the response, which may come a byte at a time.
    ///
    /// # Errors
    /// Where no response comes in time, or it refuses, or makes no sense.
    pub fn ask(mut self, request: &Request) -> Result<Vec<PeerRecord>, AskError> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(&request.encode())?;
        let mut arrived = Vec::new();
        loop {
            match Response::decode(&arrived)? {
                Some(Response::Peers(records)) => return Ok(records),
                Some(Response::Refused { message, .. }) => {
                    return Err(AskError::Refused(crate::text::escape(&message)));
                }
                None => {}
            }
            let mut buffer = [0; 4096];
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(AskError::Closed),
                Ok(n) => arrived.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(timed_out().into());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(timed_out())
        } else {
            Ok(left)
        }
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it does not answer")
}
