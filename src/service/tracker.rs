//! The server side of the tracker protocol. PROTOCOL §2, §5.
//!
//! A connection carries one request and one response. The session parses the request, answers it from the registry,
//! which lies in shared memory, and reports any change to be made. The owner of the registry validates the report
//! again, with the client address that it knows itself, and applies it.

mod owner;

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use nix::unistd::Pid;

use super::{Apart, Next, Outcome, Output, Service, Session};
use crate::confine::outside::Outside;
use crate::logging;
use crate::sys::record::Record;
use crate::text::without_errno;
use crate::tracker::policy::Policy;
use crate::tracker::registry::Registry;
use crate::tracker::roll::Roll;
use crate::tracker::state::{self, LoadError};
use crate::tracker::view::View;
use crate::wire::tracker::{Command, REQUEST_LEN, Request, RequestError, Response};

use owner::Owner;

/// Reads the operator's policy.
pub type ReadPolicy = Box<dyn Fn() -> anyhow::Result<Policy> + Send + Sync>;

/// Announces a registry to whom it concerns.
pub type Tell = Box<dyn Fn(&Roll) + Send + Sync>;

/// The state that a session starts from.
#[derive(Debug, Clone)]
struct Current {
    policy: Arc<Policy>,
    view: View,
}

/// Tells clients who serves what.
pub struct TrackerService {
    /// The state that new sessions start from. Only the owner of the state writes it.
    current: RwLock<Current>,
    /// How the policy is reloaded.
    read_policy: Option<ReadPolicy>,
    /// Who is told of the registry, and of any successor.
    tell: Option<(Pid, Tell)>,
    /// The seed of the random numbers of this tracker's sessions: they cannot use the process's generator, whose state
    /// a fork copies.
    seed: u64,
    /// Why all clients are refused, if they are.
    refusal: Option<&'static str>,
    /// Locked by the owner of the state only, for the duration of a call.
    owner: Mutex<Owner>,
}

impl TrackerService {
    /// A tracker with this registry, which must track the files of the policy.
    pub fn new(policy: Policy, registry: Registry) -> Self {
        Self {
            current: RwLock::new(Current {
                policy: Arc::new(policy),
                view: registry.view(),
            }),
            read_policy: None,
            tell: None,
            seed: fastrand::u64(..),
            refusal: None,
            owner: Mutex::new(Owner::new(registry)),
        }
    }

    /// Keeps the registry in this state file, too, and starts with its contents, except for what has expired or is not
    /// allowed any more. `outside` writes the file, since this process may lose access to files.
    ///
    /// # Errors
    /// Where the file cannot be read or makes no sense.
    pub fn with_state(
        self,
        path: &Path,
        now: SystemTime,
        outside: Outside,
    ) -> Result<Self, LoadError> {
        let policy = self.current().policy;
        self.owner()
            .load(path, &policy, seconds_since_epoch(now), outside)?;
        Ok(self)
    }

    /// Starts with the contents of a state file that another process goes on writing.
    ///
    /// # Errors
    /// Where the file cannot be read or makes no sense.
    pub fn with_peers_of(self, path: &Path, now: SystemTime) -> Result<Self, LoadError> {
        let policy = self.current().policy;
        self.owner().fill(path, &policy, seconds_since_epoch(now))?;
        Ok(self)
    }

    /// Refuses every request, with this reason.
    pub fn that_refuses(self, reason: &'static str) -> Self {
        let refusal = Some(reason);
        Self { refusal, ..self }
    }

    /// Writes what a state file holds.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write_peers(&self, to: &mut dyn Write) -> std::io::Result<()> {
        state::write(to, self.owner().registrations())
    }

    /// Reloads the policy in this way when told to.
    pub fn with_policy_from(self, read_policy: ReadPolicy) -> Self {
        Self {
            read_policy: Some(read_policy),
            ..self
        }
    }

    /// Tells of its registry in this way, now and when another one takes its place, a process of ours, which nobody else
    /// starts again.
    pub fn with_listener(self, pid: Pid, tell: Tell) -> Self {
        tell(&self.roll());
        Self {
            tell: Some((pid, tell)),
            ..self
        }
    }

    /// A view of the registry, which is current unless another registry replaces this one.
    fn roll(&self) -> Roll {
        self.current().view.roll()
    }

    /// Adopts another policy: peers that it does not allow are removed, the others are kept. Returns whether it differs
    /// from the one before.
    ///
    /// # Errors
    /// Where there is no memory for it; nothing has changed then.
    fn adopt(&self, policy: Policy, now: SystemTime) -> std::io::Result<bool> {
        if *self.current().policy == policy {
            return Ok(false);
        }
        let view = self.owner().adopt(&policy, seconds_since_epoch(now))?;
        if let Some((_, tell)) = &self.tell
            && !view.roll().is_same(&self.roll())
        {
            tell(&view.roll());
        }
        let policy = Arc::new(policy);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { policy, view };
        Ok(true)
    }

    fn current(&self) -> Current {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Saves the registry if it has a state file: the last thing that a tracker does.
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
        let Current { policy, view } = self.current();
        TrackerSession {
            policy,
            view,
            source: remote.ip(),
            now: seconds_since_epoch(now),
            rng: self.rng(remote, now),
            refusal: self.refusal,
            input: Vec::new(),
        }
    }

    fn apply(&self, remote: SocketAddr, Change(request): Change, now: SystemTime) {
        let now = seconds_since_epoch(now);
        let policy = self.current().policy;
        if let Err(reason) = self.owner().apply(&request, &policy, remote.ip(), now) {
            // Two children may each have promised the last free record.
            let line = format_args!("a report from {remote} was refused: {reason}");
            logging::about(remote, log::Level::Debug, line);
        }
    }

    fn reload(&self) -> bool {
        let Some(read) = &self.read_policy else {
            return false;
        };
        let adopted = read().and_then(|policy| Ok(self.adopt(policy, SystemTime::now())?));
        match &adopted {
            Ok(true) => log::info!("configuration reloaded: {}", self.current().policy.tracked),
            Ok(false) => log::info!("the configuration is as it was"),
            Err(error) => {
                let error = without_errno(&format!("{error:#}"));
                log::error!("{error}; the old configuration stays in force");
            }
        }
        adopted.is_ok_and(|other| other)
    }

    fn status(&self) -> Vec<String> {
        self.current().view.roll().figures().lines()
    }

    fn regret(&self) -> Vec<u8> {
        Response::refusal("this tracker has no room for your connection, try again later").encode()
    }

    fn tick(&self, now: SystemTime, apart: Apart) -> Duration {
        let policy = self.current().policy;
        self.owner().tick(&policy, now, apart)
    }

    fn child_ended(&self, pid: Pid, well: bool) -> bool {
        if self
            .tell
            .as_ref()
            .is_some_and(|(listener, _)| *listener == pid)
        {
            log::warn!("the status server of this tracker has ended");
            return true;
        }
        self.owner().child_ended(pid, well)
    }
}

/// A session's report: a subscribe or unsubscribe that it has granted.
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

/// A connection, with its one request.
#[derive(Debug)]
pub struct TrackerSession {
    policy: Arc<Policy>,
    view: View,
    /// The client's address.
    source: IpAddr,
    /// When it connected, in seconds since the Unix epoch.
    now: u32,
    rng: Rng,
    /// Why it is refused, whatever it requests.
    refusal: Option<&'static str>,
    /// The part of the request that has arrived: fewer than 54 bytes.
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
        if let Some(reason) = self.refusal {
            return (Response::refusal(reason), Outcome::Refused);
        }
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

    /// The response to a granted request, or the reason for a refusal.
    fn response(&mut self, request: &Request) -> Result<Response, owner::Refused> {
        let Request {
            command,
            hash,
            peer,
        } = request;
        match command {
            Command::List => self.policy.check_hash(hash)?,
            Command::Subscribe => {
                self.policy.check_subscribe(hash, *peer, self.source)?;
                self.view.would_accept(hash, *peer, self.source)?;
            }
            Command::Unsubscribe => {
                self.policy.check_unsubscribe(hash, *peer, self.source)?;
                return Ok(Response::Peers(Vec::new()));
            }
        }
        let mut peers = self.view.list(hash, *peer, self.now, &mut self.rng)?;
        self.policy.apply(&mut peers);
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
