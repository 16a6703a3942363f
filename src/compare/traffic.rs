//! What the clients say, per service, and how they know that a reply is complete.

use serde::{Deserialize, Serialize};

use super::plan::ServiceKind;
use crate::hash::CascadeHash;
use crate::wire::{peer, tracker};

/// A line as an interactive user might send it, its newline included.
const LINE: &[u8] = b"It is a truth universally known\n";

/// Requests that are sent again and again, and the rule for their replies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Traffic {
    /// What the clients send, in turn; at least one request.
    requests: Vec<Vec<u8>>,
    service: ServiceKind,
}

/// What was received so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// A part of a reply.
    Partial,
    /// A reply, no more and no less.
    Complete,
    /// Something else.
    Wrong,
}

impl Traffic {
    /// The traffic of a service, whose file is `hash` where it has one.
    pub fn new(service: ServiceKind, hash: CascadeHash) -> Self {
        let requests = vec![Self::request_for(service, hash)];
        Self { requests, service }
    }

    /// Lists of the peers of these files, of which there is at least one, in turn.
    pub fn lists(hashes: &[CascadeHash]) -> Self {
        let service = ServiceKind::Tracker;
        let requests = hashes
            .iter()
            .map(|hash| Self::request_for(service, *hash))
            .collect();
        Self { requests, service }
    }

    fn request_for(service: ServiceKind, hash: CascadeHash) -> Vec<u8> {
        match service {
            ServiceKind::Echo => LINE.to_vec(),
            ServiceKind::Block => peer::Request {
                hash,
                block: 0,
                extension: None,
            }
            .encode()
            .to_vec(),
            ServiceKind::Tracker => tracker::Request {
                command: tracker::Command::List,
                hash,
                peer: tracker::NOBODY,
            }
            .encode()
            .to_vec(),
        }
    }

    /// The request with this number; all of them are equally long.
    pub fn request(&self, number: u64) -> &[u8] {
        &self.requests[(number % self.requests.len() as u64) as usize]
    }

    /// A reply as short as the service has it: an empty block, an empty list.
    pub fn shortest_reply(&self) -> Vec<u8> {
        match self.service {
            ServiceKind::Echo => self.request(0).to_vec(),
            ServiceKind::Block => vec![0; peer::RESPONSE_HEADER_LEN],
            ServiceKind::Tracker => vec![0; tracker::RESPONSE_HEADER_LEN],
        }
    }

    /// Judges what was received since the request was sent.
    pub fn judge(&self, received: &[u8]) -> Reply {
        match self.service {
            ServiceKind::Echo if !self.request(0).starts_with(received) => Reply::Wrong,
            ServiceKind::Echo => reached(received, Some(self.request(0).len() as u64)),
            ServiceKind::Block => successful(received, body_length::<8>(received)),
            ServiceKind::Tracker => successful(received, body_length::<4>(received)),
        }
    }
}

/// The whole length of a response whose header is a status byte and the body's length in `N` bytes.
fn body_length<const N: usize>(received: &[u8]) -> Option<u64> {
    let header = received.get(1..=N)?;
    let length = header
        .iter()
        .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    length.checked_add(1 + N as u64)
}

/// Status 0 is success in both protocols.
fn successful(received: &[u8], length: Option<u64>) -> Reply {
    match received.first() {
        Some(status) if *status != 0 => Reply::Wrong,
        _ => reached(received, length),
    }
}

fn reached(received: &[u8], length: Option<u64>) -> Reply {
    let received = received.len() as u64;
    match length {
        Some(length) if received == length => Reply::Complete,
        Some(length) if received > length => Reply::Wrong,
        _ => Reply::Partial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(service: ServiceKind) -> Traffic {
        Traffic::new(service, CascadeHash([7; 32]))
    }

    #[test]
    fn lists_are_asked_for_in_turn() {
        let hashes = [1, 2].map(|n| CascadeHash([n; 32]));
        let lists = Traffic::lists(&hashes);
        for (number, hash) in hashes.iter().cycle().take(5).enumerate() {
            assert_eq!(lists.request(number as u64)[16..48], hash.0);
        }
    }

    #[test]
    fn an_echo_is_the_line_itself() {
        let echo = traffic(ServiceKind::Echo);
        assert_eq!(echo.judge(&LINE[..3]), Reply::Partial);
        assert_eq!(echo.judge(LINE), Reply::Complete);
        assert_eq!(echo.judge(b"It was"), Reply::Wrong);
    }

    #[test]
    fn a_response_is_complete_when_its_body_is_and_wrong_when_it_failed() {
        let block = traffic(ServiceKind::Block);
        let response = [&[0, 0, 0, 0, 0, 0, 0, 0, 3][..], b"abc"].concat();
        for end in 0..response.len() {
            assert_eq!(block.judge(&response[..end]), Reply::Partial);
        }
        assert_eq!(block.judge(&response), Reply::Complete);
        assert_eq!(block.judge(&[&response[..], b"x"].concat()), Reply::Wrong);
        assert_eq!(block.judge(&[1]), Reply::Wrong);
        let list = traffic(ServiceKind::Tracker);
        assert_eq!(list.judge(&[0, 0, 0, 0, 0]), Reply::Complete);
        assert_eq!(list.judge(&[0, 0, 0, 0]), Reply::Partial);
    }
}
