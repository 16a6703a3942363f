//! The owner of a tracker's registry: applies what sessions report, forgets who has expired, saves the state.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

use crate::confine::outside::Outside;
use crate::service::Apart;
use crate::sys::child::{self, How};
use crate::sys::{fork, signals};
use crate::text::{count, escape_path};
use crate::tracker::policy::{Policy, PolicyRefusal};
use crate::tracker::registry::Registry;
use crate::tracker::shares::Refusal;
use crate::tracker::state::{self, LoadError, Saved};
use crate::tracker::view::View;
use crate::wire::tracker::{Command, Request};

/// How long after a save the next one may be: what came meanwhile is lost where the tracker is killed. Of the time that
/// saves take it is so many times as much: with a million peers they take seconds.
const SAVE_AT_LEAST_EVERY: Duration = Duration::from_secs(60);
const SAVE_AT_MOST_EVERY: Duration = Duration::from_secs(2);
const SAVE_SHARE: u32 = 20;
/// Records that one sweep looks at: well below a millisecond, even if all have expired.
const SWEEP_SIZE: u32 = 256;
/// How long the sweeps take to come round, unless there are so few records that one sweep sees them all.
const SWEEP_ROUND: Duration = Duration::from_secs(60);
const SWEEP_EVERY_AT_MOST: Duration = Duration::from_secs(1);
const SWEEP_EVERY_AT_LEAST: Duration = Duration::from_millis(5);
/// No registry comes to have this version.
const NOT_SAVED: u64 = u64::MAX;
/// Nothing is due.
const NEVER: Duration = Duration::from_secs(3600);

/// Why a request is refused, in words for the client.
#[derive(Debug, Error)]
#[error(transparent)]
pub(super) enum Refused {
    /// The operator does not want it.
    Policy(#[from] PolicyRefusal),
    /// There is no room.
    Registry(#[from] Refusal),
}

/// The registry, and what is due.
#[derive(Debug)]
pub(super) struct Owner {
    registry: Registry,
    swept: Timer,
    /// How many places for records are still to be looked at because of another policy.
    to_review: u32,
    state: Option<State>,
}

/// The file in which the registry is kept.
#[derive(Debug)]
struct State {
    /// What it is called, fit to be shown.
    name: String,
    /// Who writes it: the owner may have no right to files.
    outside: Arc<Outside>,
    saved: Timer,
    /// How long after a save the next one may be, as things are.
    every: Duration,
    /// The registry's version that was saved last.
    version: u64,
    /// Who is saving it, and since when.
    saving: Option<(Saving, Instant)>,
}

/// Who saves the state, so that nobody waits for a disk.
#[derive(Debug)]
enum Saving {
    /// A child.
    Child(Pid),
    /// A thread, in a process that has threads and so does not fork. It answers whether it has saved the state.
    Thread(JoinHandle<bool>),
}

impl Saving {
    /// Whether it is known that it ended. (A child's end is told by [`Owner::child_ended`].)
    fn is_over(&self) -> bool {
        matches!(self, Self::Thread(thread) if thread.is_finished())
    }

    /// Waits for its end; answers whether it has saved the state.
    fn wait(self) -> bool {
        match self {
            Self::Child(pid) => matches!(child::wait(pid), Ok(How::Exited(0))),
            // A panic was reported where it happened.
            Self::Thread(thread) => thread.join().unwrap_or(false),
        }
    }
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

    /// Applies what a child said that `source` wants.
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

    /// Fills the registry from a file, in which it is kept from now on, by who writes it.
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
        self.state = Some(State {
            outside: Arc::new(outside),
            name,
            saved: Timer::default(),
            every: SAVE_AT_MOST_EVERY,
            version: self.registry.view().version(),
            saving: None,
        });
        Ok(())
    }

    /// Fills the registry from a file. Answers how many peers it had, and how many that are not allowed any more.
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

    /// All that is registered, as in a state file.
    pub fn registrations(&self) -> impl Iterator<Item = Saved> {
        let view = self.registry.view();
        let saved: Vec<Saved> = view.registrations().map(Saved::from).collect();
        saved.into_iter()
    }

    /// Goes on with another policy. What that does not allow of the registry is removed a little at a time, so that
    /// nobody waits for it. Only where it tracks more new files than there is room for, a registry is made anew, and
    /// answered; a reader of the one before sees that as it was.
    pub fn adopt(&mut self, policy: &Policy, now: u32) -> io::Result<View> {
        if self.registry.track(&policy.tracked) {
            self.registry.describe(&policy.blocks);
            self.to_review = self.registry.extent();
        } else {
            let before = self.registry.view();
            let successor = self.registry.successor(&policy.tracked)?;
            self.registry = successor.with_blocks(&policy.blocks);
            for registration in before.registrations() {
                // What is refused is not allowed any more.
                let _ = self.restore(&Saved::from(registration), policy, now);
            }
        }
        if let Some(state) = &mut self.state {
            state.version = NOT_SAVED;
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

    /// Does what is due; says when something will be.
    pub fn tick(&mut self, policy: &Policy, now: SystemTime, apart: Apart) -> Duration {
        self.sweep(policy, now).min(self.save_apart(now, apart))
    }

    /// Looks at a few records, so that none stays long after it expired and nobody waits for it.
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

    /// Saves the state apart if it has changed: a disk may be slow.
    fn save_apart(&mut self, now: SystemTime, apart: Apart) -> Duration {
        let view = self.registry.view();
        let Some(state) = &mut self.state else {
            return NEVER;
        };
        if let Some((saving, since)) = state.saving.take_if(|(saving, _)| saving.is_over()) {
            state.end_of_save(saving.wait(), since);
        }
        if state.version == view.version() {
            return NEVER;
        }
        if state.saving.is_some() {
            return state.every;
        }
        let left = state.saved.left(now, state.every);
        if !left.is_zero() {
            return left;
        }
        if state.outside.is_gone() {
            state.give_up();
            return NEVER;
        }
        state.saved.restart(now);
        let version = view.version();
        match state.start_saving(view, apart) {
            Ok(saving) => {
                state.version = version;
                state.saving = Some((saving, Instant::now()));
            }
            Err(error) => log::warn!("cannot start to save the state: {error}"),
        }
        state.every
    }

    /// Whether this was the child that saves the state; `well` says whether it has.
    pub fn child_ended(&mut self, pid: Pid, well: bool) -> bool {
        let Some(state) = &mut self.state else {
            return false;
        };
        let is_it = |(saving, _): &mut _| matches!(saving, Saving::Child(child) if *child == pid);
        let Some((_, since)) = state.saving.take_if(is_it) else {
            return false;
        };
        state.end_of_save(well, since);
        true
    }

    /// Saves the state, and waits for it.
    pub fn finish(&mut self) -> io::Result<()> {
        let view = self.registry.view();
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        if let Some((saving, _)) = state.saving.take() {
            // What it is about to rename is older than what follows.
            saving.wait();
        }
        save(&state.outside, &view)
    }
}

impl State {
    fn start_saving(&self, view: View, apart: Apart) -> io::Result<Saving> {
        match apart {
            Apart::InChild => {
                let save = || u8::from(!save_or_warn(&self.name, &self.outside, &view));
                fork::spawn_leaf(&[self.outside.as_fd()], save).map(Saving::Child)
            }
            Apart::InThread => {
                let (name, outside) = (self.name.clone(), Arc::clone(&self.outside));
                let work = move || {
                    signals::leave_to_the_loop();
                    save_or_warn(&name, &outside, &view)
                };
                let thread = thread::Builder::new().spawn(work)?;
                Ok(Saving::Thread(thread))
            }
        }
    }

    /// Decides when the next save may be, after one that began then.
    fn end_of_save(&mut self, well: bool, since: Instant) {
        self.every = if well {
            pause_after(since.elapsed())
        } else {
            // It has said why, and is not to say it all the time.
            self.version = NOT_SAVED;
            (self.every * 2).min(SAVE_AT_LEAST_EVERY)
        };
    }

    /// A tracker that was to keep its state, and cannot, ends as if it were asked to: whoever looks after it will see
    /// that, and start it again. It cannot have the right to files back.
    fn give_up(&self) {
        let name = &self.name;
        log::error!("the processes outside that write {name} have ended: this tracker ends, too");
        // To this process: it is sure to be there.
        let _ = kill(Pid::this(), Signal::SIGTERM);
    }
}

/// How long after a save that took so long the next one may be.
fn pause_after(took: Duration) -> Duration {
    (took * SAVE_SHARE).clamp(SAVE_AT_MOST_EVERY, SAVE_AT_LEAST_EVERY)
}

fn save(outside: &Outside, view: &View) -> io::Result<()> {
    outside.write(|to| state::write(to, view.registrations().map(Saved::from)))
}

/// All that is done apart; answers whether the state is saved.
fn save_or_warn(name: &str, outside: &Outside, view: &View) -> bool {
    let saved = save(outside, view);
    if let Err(error) = &saved {
        log::warn!("cannot save {name}: {error}");
    }
    saved.is_ok()
}

/// When something was done last. A clock that was set back makes everything due.
#[derive(Debug, Default)]
struct Timer(Option<SystemTime>);

impl Timer {
    fn restart(&mut self, now: SystemTime) {
        self.0 = Some(now);
    }

    /// How long it is until `every` is over; none where it was never done.
    fn left(&self, now: SystemTime, every: Duration) -> Duration {
        self.0
            .and_then(|last| now.duration_since(last).ok())
            .map_or(Duration::ZERO, |since| every.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_save_is_soon_unless_saves_take_long() {
        let pause = |milliseconds| pause_after(Duration::from_millis(milliseconds));
        assert_eq!(pause(1), SAVE_AT_MOST_EVERY);
        assert_eq!(pause(500), Duration::from_secs(10));
        assert_eq!(pause(10_000), SAVE_AT_LEAST_EVERY);
    }
}
