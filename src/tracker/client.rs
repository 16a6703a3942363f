//! The client side of the tracker protocol: one connection, one request, one response. PROTOCOL §2, §4.
//!
//! It blocks until its timeout, so it is for a process that has nothing else to do. Connecting and asking are two steps
//! because a peer advertises the local address of its connection, which is how the tracker's network sees it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::net::connect::{self, NotConnected};
use crate::text::escape;
use crate::wire::tracker::{PeerRecord, Request, Response, ResponseError};

/// How long connecting, asking and reading may take together. Some trackers serve one connection at a time, so that
/// a connect that waits is no failure before 10 s (PROTOCOL §4).
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a request failed.
#[derive(Debug, Error)]
pub enum AskError {
    /// No connection.
    #[error("cannot connect: {0}{advice}", advice = advice(.0))]
    Connect(io::Error),
    /// Timed out.
    #[error("it did not answer in time")]
    TimedOut,
    /// The connection ended before the response was complete.
    #[error("it closed the connection before its response was complete")]
    ClosedEarly,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// The response was malformed.
    #[error("its response makes no sense: {0}")]
    BadResponse(ResponseError),
    /// Something else listens there.
    #[error("{0} answers there, not a tracker")]
    NotATracker(String),
    /// The tracker refused the request.
    #[error("it refused{why}", why = why(message))]
    Refused {
        /// The status byte, not 0.
        status: u8,
        /// Its words, fit to be shown.
        message: String,
    },
}

/// What to do where nobody listens.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "; is 'cascade tracker' running there?",
        _ => "",
    }
}

/// Why it refused, where it said that. Peers refuse what only trackers understand, and say nothing.
fn why(message: &str) -> String {
    match message {
        "" => ", and did not say why; is it a tracker, and not a peer?".into(),
        message => format!(": {message}"),
    }
}

/// What is wrong with these bytes. Other programs send text, of which the length would be absurd.
fn nonsense(bytes: &[u8], error: ResponseError) -> AskError {
    let begin = &bytes[..bytes.len().min(16)];
    let is_text = begin
        .iter()
        .all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n'));
    if begin.starts_with(b"HTTP/") || begin.starts_with(b"<") {
        AskError::NotATracker("a web server".into())
    } else if is_text {
        let line = begin.split(|byte| matches!(byte, b'\r' | b'\n')).next();
        let line = escape(line.unwrap_or_default());
        AskError::NotATracker(format!("something that says '{line}'"))
    } else {
        AskError::BadResponse(error)
    }
}

/// A tracker's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The peers that it knows; none after an unsubscribe.
    pub peers: Vec<PeerRecord>,
    /// The local address of the connection.
    pub local: SocketAddr,
}

/// A connection to a tracker, before the request.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
    deadline: Instant,
}

/// Asks a tracker, all within `timeout`: the first of its addresses that answers, and where that is no tracker, or closes
/// the connection, the others. A refusal is an answer.
///
/// # Errors
/// Where the tracker cannot be reached, does not answer, or refuses.
pub fn ask(
    tracker: &[SocketAddr],
    request: &Request,
    timeout: Duration,
) -> Result<Answer, AskError> {
    ask_any(tracker, timeout, |connection| connection.ask(request))
}

/// As [`ask`], with whatever is asked.
///
/// # Errors
/// As [`ask`].
pub fn ask_any<T>(
    tracker: &[SocketAddr],
    timeout: Duration,
    mut question: impl FnMut(Connection) -> Result<T, AskError>,
) -> Result<T, AskError> {
    let mut left = tracker.to_vec();
    let mut result = Err(AskError::TimedOut);
    while !left.is_empty() {
        match connect(&left, timeout) {
            Ok(connection) => {
                let address = connection.remote;
                left.retain(|other| *other != address);
                result = question(connection);
            }
            // What was wrong with one that did answer says more.
            Err(error) if left.len() == tracker.len() => return Err(error),
            Err(_) => return result,
        }
        if matches!(result, Ok(_) | Err(AskError::Refused { .. })) {
            return result;
        }
    }
    result
}

/// Connects to the first of a tracker's addresses that answers. The timeout is that of the whole exchange.
///
/// # Errors
/// Where there is no connection within the time.
pub fn connect(tracker: &[SocketAddr], timeout: Duration) -> Result<Connection, AskError> {
    let deadline = Instant::now() + timeout;
    let connected = connect::to_first(tracker, left(deadline)?).map_err(NotConnected::into_error);
    let connected = connected.and_then(|(stream, remote)| {
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        Ok(Connection {
            stream,
            local,
            remote,
            deadline,
        })
    });
    connected.map_err(AskError::Connect)
}

impl Connection {
    /// The address from which the tracker is asked.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The address of the tracker that answered.
    pub fn remote_addr(&self) -> SocketAddr {
        self.remote
    }

    /// Sends the request, and reads the response until it is complete: not all trackers close the connection.
    ///
    /// # Errors
    /// Where the tracker does not answer within the time, or refuses.
    pub fn ask(mut self, request: &Request) -> Result<Answer, AskError> {
        self.send(&request.encode())?;
        match self.receive()? {
            Response::Peers(peers) => Ok(Answer {
                peers,
                local: self.local,
            }),
            Response::Refused { status, message } => Err(AskError::Refused {
                status,
                message: escape(&message),
            }),
        }
    }

    /// In one write: some trackers read the whole request with a single recv(2).
    fn send(&mut self, request: &[u8]) -> Result<(), AskError> {
        self.stream
            .set_write_timeout(Some(left(self.deadline)?))
            .and_then(|()| self.stream.write_all(request))
            .map_err(broken)
    }

    /// The length is checked before its bytes are read, so that no more is taken than a response may have.
    fn receive(&mut self) -> Result<Response, AskError> {
        let mut bytes = Vec::new();
        loop {
            let response = Response::decode(&bytes);
            if let Some(response) = response.map_err(|error| nonsense(&bytes, error))? {
                return Ok(response);
            }
            let mut buffer = [0; 4096];
            self.stream
                .set_read_timeout(Some(left(self.deadline)?))
                .map_err(AskError::Broken)?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(AskError::ClosedEarly),
                Ok(n) => bytes.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
    }
}

/// The time that is left, more than zero.
fn left(deadline: Instant) -> Result<Duration, AskError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(AskError::TimedOut)
    } else {
        Ok(left)
    }
}

fn broken(error: io::Error) -> AskError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::TimedOut,
        _ => AskError::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::CascadeHash;
    use crate::wire::tracker::{Command, NOBODY, REQUEST_LEN};
    use std::net::TcpListener;
    use std::thread;

    const REQUEST: Request = Request {
        command: Command::List,
        hash: CascadeHash([7; 32]),
        peer: NOBODY,
    };

    /// Asks a tracker that reads a request with one read and then does as told.
    fn ask_one_that(
        answers: impl FnOnce(&mut TcpStream) + Send,
        timeout: Duration,
    ) -> Result<Answer, AskError> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut request = [0; 100];
                let n = stream.read(&mut request).expect("a request");
                assert_eq!(request[..n], REQUEST.encode());
                assert_eq!(n, REQUEST_LEN);
                answers(&mut stream);
            });
            ask(&[address], &REQUEST, timeout)
        })
    }

    fn record(n: u8) -> PeerRecord {
        PeerRecord {
            address: std::net::SocketAddrV4::new([192, 0, 2, n].into(), 80),
            last_seen: 5,
            good: n == 1,
        }
    }

    #[test]
    fn a_response_may_come_byte_by_byte_and_the_connection_stay_open() {
        let peers: Vec<_> = (0..20).map(record).collect();
        let bytes = Response::Peers(peers.clone()).encode();
        let answer = ask_one_that(
            |stream| {
                stream.set_nodelay(true).expect("an option");
                for byte in bytes {
                    stream.write_all(&[byte]).expect("a write");
                }
                // Waits until the client is content and closes.
                let _ = stream.read(&mut [0]);
            },
            TIMEOUT,
        )
        .expect("an answer");
        assert_eq!(answer.peers, peers);
        assert!(answer.local.ip().is_loopback());
    }

    #[test]
    fn a_refusal_is_shown_escaped() {
        let error = ask_one_that(
            |stream| {
                let response = Response::refusal("go\x1b[2J away");
                stream.write_all(&response.encode()).expect("a write");
            },
            TIMEOUT,
        );
        let error = error.expect_err("a refusal").to_string();
        assert_eq!(error, r"it refused: go\u{1b}[2J away");
    }

    #[test]
    fn servers_of_other_protocols_are_recognised() {
        for (text, says) in [
            (
                &b"HTTP/1.1 400 Bad Request\r\n"[..],
                "a web server answers there, not a tracker",
            ),
            (
                b"<!DOCTYPE HTML>",
                "a web server answers there, not a tracker",
            ),
            (
                b"SSH-2.0-x\r\nabc",
                "something that says 'SSH-2.0-x' answers there, not a tracker",
            ),
            (
                b"\x01\0\0\0\0",
                "it refused, and did not say why; is it a tracker, and not a peer?",
            ),
        ] {
            let answer = ask_one_that(|stream| stream.write_all(text).expect("a write"), TIMEOUT);
            assert_eq!(answer.expect_err("no tracker").to_string(), says);
        }
    }

    #[test]
    fn nonsense_silence_and_an_early_end_have_names() {
        let long = ask_one_that(
            |stream| stream.write_all(b"\0\xff\xff\xff\xff").expect("a write"),
            TIMEOUT,
        );
        assert!(matches!(long, Err(AskError::BadResponse(_))), "{long:?}");
        let early = ask_one_that(
            |stream| stream.write_all(b"\0\0\0\0\x0cx").expect("a write"),
            TIMEOUT,
        );
        assert!(matches!(early, Err(AskError::ClosedEarly)), "{early:?}");
        let silent = ask_one_that(
            |stream| drop(stream.read(&mut [0])),
            Duration::from_millis(50),
        );
        assert!(matches!(silent, Err(AskError::TimedOut)), "{silent:?}");
    }

    #[test]
    fn a_tracker_that_drips_is_not_waited_for_beyond_the_timeout() {
        let started = Instant::now();
        let slow = ask_one_that(
            |stream| {
                let _ = stream.write_all(b"\0\0\0\xff\xfc");
                while stream.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(5));
                }
            },
            Duration::from_millis(100),
        );
        assert!(matches!(slow, Err(AskError::TimedOut)), "{slow:?}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn nobody_listening_is_a_failure_to_connect() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let error = ask(&[address], &REQUEST, TIMEOUT).expect_err("nobody is there");
        assert!(matches!(error, AskError::Connect(_)), "{error}");
    }
}
