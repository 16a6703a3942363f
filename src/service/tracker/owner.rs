//! The owner of a tracker's registry: applies what sessions report, removes expired peers, saves the state.

mod saving;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::unistd::Pid;
use thiserror::Error;

use crate::confine::outside::Outside;
use crate::service::Apart;
use crate::text::{count, escape_path};
use crate::tracker::policy::{Policy, PolicyRefusal};
use crate::tracker::registry::Registry;
use crate::tracker::shares::Refusal;
use crate::tracker::state::{self, LoadError, Saved};
use crate::tracker::view::View;
use crate::wire::tracker::{Command, Request};
use saving::State;

/// Records examined by one sweep: well below a millisecond, even if all have expired.
const SWEEP_SIZE: u32 = 256;
/// The time in which the sweeps go through all records, unless there are so few that one sweep sees them all.
const SWEEP_ROUND: Duration = Duration::from_secs(60);
const SWEEP_EVERY_AT_MOST: Duration = Duration::from_secs(1);
const SWEEP_EVERY_AT_LEAST: Duration = Duration::from_millis(5);
/// Nothing is due.
const NEVER: Duration = Duration::from_secs(3600);

/// Why a request is refused, worded for the client.
#[derive(Debug, Error)]
#[error(transparent)]
pub(super) enum Refused {
    /// The policy forbids it.
    Policy(#[from] PolicyRefusal),
    /// The registry is full.
    Registry(#[from] Refusal),
}

/// The registry, and its periodic work.
#[derive(Debug)]
pub(super) struct Owner {
    registry: Registry,
    swept: Timer,
    /// How many record slots are still to be reviewed after a change of policy.
    to_review: u32,
    state: Option<State>,
}

impl Owner {
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            swept: Timer::default(),
            to_review: 0,
            state: None,
        }
    }

    /// Applies a child's report of a request from `source`.
    pub fn apply(
        &mut self,
        request: &Request,
        policy: &Policy,
        source: IpAddr,
        now: u32,
    ) -> Result<(), Refused> {
        let Request {
            command,
            hash,
            peer,
        } = request;
        match command {
            Command::List => {}
            Command::Subscribe => {
                let good = policy.check_subscribe(hash, *peer, source)?;
                self.registry.subscribe(hash, *peer, source, good, now)?;
            }
            Command::Unsubscribe => {
                policy.check_unsubscribe(hash, *peer, source)?;
                self.registry.unsubscribe(hash, *peer);
            }
        }
        Ok(())
    }

    /// Loads the registry from a file, in which `outside` keeps it from now on.
    pub fn load(
        &mut self,
        path: &Path,
        policy: &Policy,
        now: u32,
        outside: Outside,
    ) -> Result<(), LoadError> {
        let (kept, left_out) = self.fill(path, policy, now)?;
        let name = escape_path(path);
        let peers = count(kept as usize, "peer");
        match (kept, left_out) {
            (0, 0) => {}
            (_, 0) => log::info!("{name}: {peers}"),
            _ => log::info!("{name}: {peers}; left out, because not allowed any more: {left_out}"),
        }
        let version = self.registry.view().version();
        self.state = Some(State::new(name, outside, version));
        Ok(())
    }

    /// Loads the registry from a file. Returns the number of peers, and of those that are not allowed any more.
    pub fn fill(
        &mut self,
        path: &Path,
        policy: &Policy,
        now: u32,
    ) -> Result<(u32, u32), LoadError> {
        let (mut loaded, mut left_out) = (0, 0);
        state::load(path, |saved| match self.restore(&saved, policy, now) {
            Ok(()) => loaded += 1,
            Err(_) => left_out += 1,
        })?;
        // Whoever expired while the tracker was away is forgotten without a word.
        let expired = self.registry.sweep(now, u32::MAX);
        Ok((loaded - expired, left_out))
    }

    /// All registrations, as in a state file.
    pub fn registrations(&self) -> impl Iterator<Item = Saved> {
        let view = self.registry.view();
        let saved: Vec<Saved> = view.registrations().map(Saved::from).collect();
        saved.into_iter()
    }

    /// Adopts another policy. Records that it does not allow are removed gradually, so that no client is delayed. Only
    /// if it tracks more new files than there is room for is the registry replaced; its view is returned, and readers
    /// of the old one keep seeing that.
    pub fn adopt(&mut self, policy: &Policy, now: u32) -> io::Result<View> {
        if self.registry.track(&policy.tracked) {
            self.registry.describe(&policy.described);
            self.to_review = self.registry.extent();
        } else {
            let before = self.registry.view();
            let successor = self.registry.successor(&policy.tracked)?;
            self.registry = successor.with_descriptions(&policy.described);
            for registration in before.registrations() {
                // What is refused is not allowed any more.
                let _ = self.restore(&Saved::from(registration), policy, now);
            }
        }
        if let Some(state) = &mut self.state {
            state.has_changed();
        }
        Ok(self.registry.view())
    }

    fn restore(&mut self, saved: &Saved, policy: &Policy, now: u32) -> Result<(), Refused> {
        let Saved {
            hash, peer, source, ..
        } = saved;
        let good = policy.check_subscribe(hash, *peer, *source)?;
        let last_seen = saved.last_seen.min(now);
        self.registry
            .subscribe(hash, *peer, *source, good, last_seen)?;
        Ok(())
    }

    /// Runs periodic work that is due; returns how long it is until more is due.
    pub fn tick(&mut self, policy: &Policy, now: SystemTime, apart: Apart) -> Duration {
        self.sweep(policy, now).min(self.save_apart(now, apart))
    }

    /// Examines a few records, so that none stays long after it has expired, and no client is delayed.
    fn sweep(&mut self, policy: &Policy, now: SystemTime) -> Duration {
        if self.registry.view().is_empty() {
            self.to_review = 0;
            return NEVER;
        }
        let sweeps = self.registry.extent().div_ceil(SWEEP_SIZE).max(1);
        let every = match self.to_review {
            0 => (SWEEP_ROUND / sweeps).clamp(SWEEP_EVERY_AT_LEAST, SWEEP_EVERY_AT_MOST),
            _ => SWEEP_EVERY_AT_LEAST,
        };
        let left = self.swept.left(now, every);
        if !left.is_zero() {
            return left;
        }
        self.swept.restart(now);
        let now = super::seconds_since_epoch(now);
        if self.to_review > 0 {
            let judge = |hash: &_, peer, source| policy.check_subscribe(hash, peer, source).ok();
            let swept = self.registry.review(now, SWEEP_SIZE, &judge);
            self.to_review = self.to_review.saturating_sub(swept.passed);
        } else {
            self.registry.sweep(now, SWEEP_SIZE);
        }
        every
    }

    /// Saves the state if it has changed, in a child or thread.
    fn save_apart(&mut self, now: SystemTime, apart: Apart) -> Duration {
        match &mut self.state {
            Some(state) => state.save_apart(self.registry.view(), now, apart),
            None => NEVER,
        }
    }

    /// Whether this was the child that saves the state; `well` says whether it has.
    pub fn child_ended(&mut self, pid: Pid, well: bool) -> bool {
        let state = self.state.as_mut();
        state.is_some_and(|state| state.child_ended(pid, well))
    }

    /// Saves the state, and waits until it is saved.
    pub fn finish(&mut self) -> io::Result<()> {
        match &mut self.state {
            Some(state) => state.finish(&self.registry.view()),
            None => Ok(()),
        }
    }
}

/// When something was last done. If the clock was set back, it is due.
#[derive(Debug, Default)]
struct Timer(Option<SystemTime>);

impl Timer {
    fn restart(&mut self, now: SystemTime) {
        self.0 = Some(now);
    }

    /// The time left until `every` has passed; zero if it was never done.
    fn left(&self, now: SystemTime, every: Duration) -> Duration {
        self.0
            .and_then(|last| now.duration_since(last).ok())
            .map_or(Duration::ZERO, |since| every.saturating_sub(since))
    }
}
