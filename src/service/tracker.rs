//! The tracker protocol's server. PROTOCOL §2, §5.
//!
//! A connection has one request and one response. The session parses and answers, from the registry that its owner
//! keeps in shared memory; what is to change it reports. The owner checks the report once more, with the address that
//! it knows by itself, and changes the registry.

mod owner;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use nix::unistd::Pid;

use super::{Apart, Next, Outcome, Output, Service, Session};
use crate::sys::pipe::Record;
use crate::tracker::policy::Policy;
use crate::tracker::registry::Registry;
use crate::tracker::state::LoadError;
use crate::tracker::view::View;
use crate::wire::tracker::{Command, REQUEST_LEN, Request, RequestError, Response};

use owner::Owner;

/// Tells clients who serves what.
#[derive(Debug)]
pub struct TrackerService {
    policy: Arc<Policy>,
    view: View,
    /// What the random numbers of this tracker's sessions begin with. They cannot begin with the state of the process,
    /// which a fork copies.
    seed: u64,
    /// Locked by the owner of the state only, for the time of a call.
    owner: Mutex<Owner>,
}

impl TrackerService {
    /// A tracker with this registry, which must track the files of the policy.
    pub fn new(policy: Policy, registry: Registry) -> Self {
        Self {
            policy: Arc::new(policy),
            view: registry.view(),
            seed: fastrand::u64(..),
            owner: Mutex::new(Owner::new(registry)),
        }
    }

    /// Keeps the registry in this file as well, and begins with what is there, as far as it has not expired and is
    /// still allowed.
    ///
    /// # Errors
    /// Where the file cannot be read, or makes no sense.
    pub fn with_state(self, path: PathBuf, now: SystemTime) -> Result<Self, LoadError> {
        self.owner()
            .load(path, &self.policy, seconds_since_epoch(now))?;
        Ok(self)
    }

    /// Saves the registry, where it has a file: the last thing that a tracker does.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn finish(&self) -> std::io::Result<()> {
        self.owner().finish()
    }

    /// Random numbers for one connection.
    fn rng(&self, remote: SocketAddr, now: SystemTime) -> Rng {
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let nanoseconds = since.unwrap_or_default().as_nanos() as u64;
        let port = u64::from(remote.port()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Rng::with_seed(self.seed ^ nanoseconds.rotate_left(32) ^ port)
    }

    fn owner(&self) -> MutexGuard<'_, Owner> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for TrackerService {
    type Session = TrackerSession;

    fn open(&self, remote: SocketAddr, now: SystemTime) -> TrackerSession {
        TrackerSession {
            policy: Arc::clone(&self.policy),
            view: self.view.clone(),
            source: remote.ip(),
            now: seconds_since_epoch(now),
            rng: self.rng(remote, now),
            input: Vec::new(),
        }
    }

    fn apply(&self, remote: SocketAddr, Change(request): Change, now: SystemTime) {
        let now = seconds_since_epoch(now);
        if let Err(reason) = self.owner().apply(&request, &self.policy, remote.ip(), now) {
            // Two children may each have promised the last free record.
            log::debug!("a report from {remote} was refused: {reason}");
        }
    }

    fn regret(&self) -> Vec<u8> {
        Response::refusal("this tracker has no room for your connection, try again later").encode()
    }

    fn tick(&self, now: SystemTime, apart: Apart) -> Duration {
        self.owner().tick(now, apart)
    }

    fn child_ended(&self, pid: Pid) -> bool {
        self.owner().child_ended(pid)
    }
}

/// What a session reports: a subscribe or unsubscribe that it has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change(Request);

impl Record for Change {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.0.encode());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match Request::decode(bytes) {
            Ok(Some(request)) if bytes.len() == REQUEST_LEN && request.command != Command::List => {
                Some(Self(request))
            }
            _ => None,
        }
    }
}

/// A connection that asks one thing.
#[derive(Debug)]
pub struct TrackerSession {
    policy: Arc<Policy>,
    view: View,
    /// The client's address.
    source: IpAddr,
    /// When it connected, in seconds since the Unix epoch.
    now: u32,
    rng: Rng,
    /// What has arrived of the request: fewer than 54 bytes.
    input: Vec<u8>,
}

impl Session for TrackerSession {
    type Report = Change;

    fn receive(&mut self, input: &[u8], output: &mut Output, reports: &mut Vec<Change>) -> Next {
        let result = if !input.is_empty() {
            // What follows the request is not for us.
            let missing = REQUEST_LEN.saturating_sub(self.input.len());
            self.input.extend(input.iter().take(missing));
            Request::decode(&self.input)
        } else if self.input.is_empty() {
            return Next::Close(Outcome::Done);
        } else {
            Err(RequestError::Truncated)
        };
        let (response, outcome) = match result {
            Ok(None) => return Next::Read,
            Ok(Some(request)) => self.answer(request, reports),
            Err(error) => (Response::refusal(error), Outcome::ProtocolError),
        };
        output.push_bytes(&response.encode());
        Next::Close(outcome)
    }

    fn is_idle(&self) -> bool {
        self.input.is_empty()
    }
}

impl TrackerSession {
    fn answer(&mut self, request: Request, reports: &mut Vec<Change>) -> (Response, Outcome) {
        match self.response(&request) {
            Ok(response) => {
                if request.command != Command::List {
                    reports.push(Change(request));
                }
                (response, Outcome::Done)
            }
            Err(reason) => (Response::refusal(reason), Outcome::Refused),
        }
    }

    /// The response to a request that is granted, or why it is not.
    fn response(&mut self, request: &Request) -> Result<Response, owner::Refused> {
        let Request {
            command,
            hash,
            peer,
        } = request;
        match command {
            Command::List => {}
            Command::Subscribe => {
                self.policy.check_subscribe(hash, *peer, self.source)?;
                self.view.would_accept(hash, *peer, self.source)?;
            }
            Command::Unsubscribe => {
                self.policy.check_unsubscribe(hash, *peer, self.source)?;
                return Ok(Response::Peers(Vec::new()));
            }
        }
        let peers = self.view.list(hash, *peer, self.now, &mut self.rng)?;
        Ok(Response::Peers(peers))
    }
}

/// As the protocol counts time; the clock of a machine may say anything.
fn seconds_since_epoch(now: SystemTime) -> u32 {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
