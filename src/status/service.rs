//! The service that reports a server's status: sessions of one request and one response.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::hosts::Hosts;
use super::http::{self, Asked, Refusal, Resource};
use super::rates::Rates;
use super::report::{Role, Status};
use super::{metrics, page};
use crate::service::{Apart, Next, Outcome, Output, Reports, Service, Session};

/// A source of status reports.
pub trait Source: Send + Sync {
    /// Makes the source's memory read-only for this process and its future children.
    ///
    /// # Errors
    /// Where the memory cannot be protected.
    fn only_look(&self) -> io::Result<()>;

    /// Byte counters whose rates are wanted, always in the same order.
    fn counters(&self) -> Vec<u64>;

    /// The present status.
    fn status(&self, rates: &Rates, now: SystemTime) -> Status;
}

/// Answers status requests.
pub struct StatusService {
    source: Arc<dyn Source>,
    /// For which hosts to answer.
    hosts: Arc<Hosts>,
    /// Locked for the duration of a call.
    rates: Mutex<Rates>,
}

impl StatusService {
    /// Tells how this is.
    pub fn new(source: Arc<dyn Source>, hosts: Hosts) -> Self {
        Self {
            source,
            hosts: Arc::new(hosts),
            rates: Mutex::default(),
        }
    }
}

impl Service for StatusService {
    type Session = StatusSession;
    const REPORTS: Reports = Reports::Never;

    fn open(&self, _remote: SocketAddr, now: SystemTime) -> StatusSession {
        let rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        StatusSession {
            source: Arc::clone(&self.source),
            hosts: Arc::clone(&self.hosts),
            rates: rates.clone(),
            now,
            input: Vec::new(),
        }
    }

    fn apply(&self, _remote: SocketAddr, report: Infallible, _now: SystemTime) {
        match report {}
    }

    fn tick(&self, _now: SystemTime, _apart: Apart) -> Duration {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.look(Instant::now(), || self.source.counters())
    }

    fn regret(&self) -> Vec<u8> {
        http::refusal(Refusal::Unavailable, SystemTime::now())
    }
}

/// A connection, with its one request.
pub struct StatusSession {
    source: Arc<dyn Source>,
    hosts: Arc<Hosts>,
    rates: Rates,
    /// When the client connected.
    now: SystemTime,
    /// The part of the request that has arrived: at most [`http::MAX_HEAD`] bytes.
    input: Vec<u8>,
}

impl Session for StatusSession {
    type Report = Infallible;

    fn receive(&mut self, input: &[u8], output: &mut Output, _: &mut Vec<Infallible>) -> Next {
        let parsed = if !input.is_empty() {
            let missing = http::MAX_HEAD.saturating_sub(self.input.len());
            self.input.extend(input.iter().take(missing));
            http::parse(&self.input, &self.hosts)
        } else if self.input.is_empty() {
            return Next::Close(Outcome::Done);
        } else {
            Err(Refusal::BadRequest)
        };
        let answer = match parsed {
            Ok(None) => return Next::Read,
            Ok(Some(asked)) => self.answer(asked),
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(response) => {
                output.push_bytes(&response);
                Next::Close(Outcome::Done)
            }
            Err(refusal) => {
                output.push_bytes(&http::refusal(refusal, self.now));
                Next::Close(match refusal.is_understood() {
                    true => Outcome::Refused,
                    false => Outcome::ProtocolError,
                })
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.input.is_empty()
    }
}

impl StatusSession {
    fn answer(&self, asked: Asked) -> Result<Vec<u8>, Refusal> {
        let status = self.source.status(&self.rates, self.now);
        let contents = match asked.resource {
            Resource::Json => json(&status),
            Resource::Metrics => metrics::render(&status),
            Resource::Page => match &status.role {
                Role::Tracker(tracker) => page::render(&status, tracker),
                Role::Peer(_) => return Err(Refusal::NotFound),
            },
        };
        Ok(http::response(asked, &contents, self.now))
    }
}

/// One line.
fn json(status: &Status) -> String {
    // Numbers and texts: there is nothing in it that could not be encoded.
    let mut line = serde_json::to_string(status).unwrap_or_default();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Chunk;
    use crate::status::tests::{peer, tracker};

    struct Fixed(Status);

    impl Source for Fixed {
        fn only_look(&self) -> io::Result<()> {
            Ok(())
        }

        fn counters(&self) -> Vec<u64> {
            Vec::new()
        }

        fn status(&self, _: &Rates, _: SystemTime) -> Status {
            self.0.clone()
        }
    }

    /// What comes back for the request, when it arrives in parts of this length.
    fn exchange(status: Status, request: &str, cut: usize) -> (String, Outcome) {
        let service = StatusService::new(Arc::new(Fixed(status)), Hosts::all());
        let remote = ([127, 0, 0, 1], 1).into();
        let mut session = service.open(remote, SystemTime::now());
        let (mut output, mut reports) = (Output::default(), Vec::new());
        let parts = request.as_bytes().chunks(cut).chain([&b""[..]]);
        for part in parts {
            if let Next::Close(outcome) = session.receive(part, &mut output, &mut reports) {
                let mut reply = Vec::new();
                for chunk in output.drain() {
                    let Chunk::Bytes { bytes, .. } = chunk else {
                        panic!("there are no files");
                    };
                    reply.extend(bytes);
                }
                return (String::from_utf8(reply).expect("text"), outcome);
            }
            assert!(output.is_empty() && session.input.len() <= http::MAX_HEAD);
        }
        panic!("the end of input is the end");
    }

    #[test]
    fn a_request_is_answered_however_it_was_cut() {
        let request = "GET /status.json HTTP/1.1\r\nHost: x\r\n\r\n";
        for cut in [1, 2, 7, 4096] {
            let (reply, outcome) = exchange(tracker(), request, cut);
            assert_eq!(outcome, Outcome::Done);
            let (_, body) = reply.split_once("\r\n\r\n").expect("a head");
            let status: Status = serde_json::from_str(body).expect("JSON");
            assert_eq!(status, tracker());
        }
    }

    #[test]
    fn how_it_ended_is_what_the_books_would_say() {
        for (request, starts, expected) in [
            ("", "", Outcome::Done),
            ("GET / HT", "HTTP/1.1 400 ", Outcome::ProtocolError),
            ("\x16\x03\x01", "HTTP/1.1 400 ", Outcome::ProtocolError),
            ("GET /x HTTP/1.0\r\n\r\n", "HTTP/1.1 404 ", Outcome::Refused),
            ("POST / HTTP/1.0\r\n\r\n", "HTTP/1.1 405 ", Outcome::Refused),
            ("GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 ", Outcome::Done),
        ] {
            let (reply, outcome) = exchange(tracker(), request, 4096);
            assert!(reply.starts_with(starts), "{request:?}: {reply}");
            assert_eq!(outcome, expected, "{request:?}");
        }
        let (reply, outcome) = exchange(peer(), "GET / HTTP/1.0\r\n\r\n", 4096);
        assert!(reply.starts_with("HTTP/1.1 404 "), "{reply}");
        assert_eq!(outcome, Outcome::Refused);
    }

    #[test]
    fn a_request_without_an_end_takes_no_more_memory_than_it_may() {
        let (reply, outcome) = exchange(tracker(), &"x".repeat(1 << 20), 4096);
        assert!(reply.starts_with("HTTP/1.1 414 "), "{reply}");
        assert_eq!(outcome, Outcome::ProtocolError);
    }
}
