//! Saving the registry: when to, and in a process or thread of its own, so that no client waits for the disk.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{NEVER, Timer};
use crate::confine::outside::Outside;
use crate::service::Apart;
use crate::sys::child::{self, How};
use crate::sys::{fork, signals};
use crate::tracker::state::{self, Saved};
use crate::tracker::view::View;

/// How long after a save the next one may be: what came meanwhile is lost where the tracker is killed. Of the time that
/// saves take it is so many times as much: with a million peers they take seconds.
const SAVE_AT_LEAST_EVERY: Duration = Duration::from_secs(60);
const SAVE_AT_MOST_EVERY: Duration = Duration::from_secs(2);
const SAVE_SHARE: u32 = 20;
/// No registry comes to have this version.
const NOT_SAVED: u64 = u64::MAX;

/// The state file, in which the registry is kept.
#[derive(Debug)]
pub(super) struct State {
    /// Its name, escaped for display.
    name: String,
    /// Who writes it: the owner may have no access to files.
    outside: Arc<Outside>,
    saved: Timer,
    /// How long after a save the next one may be, as things are.
    every: Duration,
    /// The registry's version that was saved last.
    version: u64,
    /// The save in progress, and when it began.
    saving: Option<(Saving, Instant)>,
}

/// A save in progress.
#[derive(Debug)]
enum Saving {
    /// A child.
    Child(Pid),
    /// A thread, in a process that has threads and so does not fork. It answers whether it has saved the state.
    Thread(JoinHandle<bool>),
}

impl Saving {
    /// Whether it is known that it ended. (A child's end is reported by [`State::child_ended`].)
    fn is_over(&self) -> bool {
        matches!(self, Self::Thread(thread) if thread.is_finished())
    }

    /// Waits for its end; returns whether the state is saved.
    fn wait(self) -> bool {
        match self {
            Self::Child(pid) => matches!(child::wait(pid), Ok(How::Exited(0))),
            // A panic was reported where it happened.
            Self::Thread(thread) => thread.join().unwrap_or(false),
        }
    }
}

impl State {
    /// A registry that was just loaded from its state file, as of this version.
    pub fn new(name: String, outside: Outside, version: u64) -> Self {
        Self {
            name,
            outside: Arc::new(outside),
            saved: Timer::default(),
            every: SAVE_AT_MOST_EVERY,
            version,
            saving: None,
        }
    }

    /// The registry is not what was saved, whatever its version.
    pub fn has_changed(&mut self) {
        self.version = NOT_SAVED;
    }

    /// Saves the state if it has changed, in a child or thread. Returns when to call again.
    pub fn save_apart(&mut self, view: View, now: SystemTime, apart: Apart) -> Duration {
        if let Some((saving, since)) = self.saving.take_if(|(saving, _)| saving.is_over()) {
            self.end_of_save(saving.wait(), since);
        }
        if self.version == view.version() {
            return NEVER;
        }
        if self.saving.is_some() {
            return self.every;
        }
        let left = self.saved.left(now, self.every);
        if !left.is_zero() {
            return left;
        }
        if self.outside.is_gone() {
            self.give_up();
            return NEVER;
        }
        self.saved.restart(now);
        let version = view.version();
        match self.start_saving(view, apart) {
            Ok(saving) => {
                self.version = version;
                self.saving = Some((saving, Instant::now()));
            }
            Err(error) => log::warn!("cannot start to save the state: {error}"),
        }
        self.every
    }

    /// Whether this child was saving the state; `well` says whether it succeeded.
    pub fn child_ended(&mut self, pid: Pid, well: bool) -> bool {
        let is_it = |(saving, _): &mut _| matches!(saving, Saving::Child(child) if *child == pid);
        let Some((_, since)) = self.saving.take_if(is_it) else {
            return false;
        };
        self.end_of_save(well, since);
        true
    }

    /// Saves the state, and waits for it.
    pub fn finish(&mut self, view: &View) -> io::Result<()> {
        if let Some((saving, _)) = self.saving.take() {
            // What it is about to rename is older than what follows.
            saving.wait();
        }
        save(&self.outside, view)
    }

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

    /// Decides when the next save may begin, after one that began at `since`.
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

/// The pause after a save that took this long.
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
