//! Liveness: what the service manager hears of a node, and how the supervisor knows whether its listener hangs.
//!
//! The service manager watches the supervisor, and the supervisor its roles. It sees all deaths; of the listener, on
//! whose loop others depend, it also sees a hang: then the listener is killed and restarted. Until a listener is alive
//! again the manager's watchdog gets no notification, so that if nothing else helps the whole node is restarted.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::manager::Manager;
use crate::sys::shared::Shared;
use crate::sys::signals::{Signals, Watcher};

/// Longer than anything here lasts: a year.
const FAR: Duration = Duration::from_secs(365 * 86_400);

/// What the supervisor of a node shows of itself. Without a manager, nothing.
#[derive(Debug, Default)]
pub struct Vitals {
    manager: Manager,
    /// Where the manager is a watchdog.
    pulse: Option<Rc<Pulse>>,
    /// What the manager was told last.
    status: RefCell<String>,
    ready: Cell<bool>,
}

impl Vitals {
    /// For this manager.
    ///
    /// # Errors
    /// Where the memory cannot be had.
    pub fn new(manager: Manager) -> io::Result<Self> {
        let pulse = manager
            .watchdog()
            .map(|patience| Pulse::new(manager.beat(), patience))
            .transpose()?;
        Ok(Self {
            manager,
            pulse: pulse.map(Rc::new),
            ..Self::default()
        })
    }

    /// Shows what the supervisor's loop does, which has these signals.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn watch(self: &Rc<Self>, signals: Signals) -> io::Result<Signals> {
        let beat = self.manager.beat();
        signals.watched_by(Rc::clone(self) as Rc<dyn Watcher>, beat)
    }

    /// That of the listener.
    pub fn pulse(&self) -> Option<&Rc<Pulse>> {
        self.pulse.as_ref()
    }

    /// The node is ready, once: whoever connects is served, or will be when that is possible.
    pub fn ready(&self, status: &str) {
        if !self.ready.replace(true) {
            self.manager.ready(status);
            *self.status.borrow_mut() = status.into();
        }
    }

    /// What the node is at; told where it has changed.
    pub fn status(&self, status: String) {
        if *self.status.borrow() != status {
            self.manager.status(&status);
            *self.status.borrow_mut() = status;
        }
    }
}

impl Watcher for Vitals {
    fn lives(&self) {
        if self.pulse.as_ref().is_none_or(|pulse| pulse.is_felt()) {
            self.manager.lives(&self.status.borrow());
        }
    }

    fn stopping(&self) {
        self.manager.stopping("finishing");
    }

    fn reloading(&self) {
        self.manager.reloading();
    }

    fn reloaded(&self) {
        self.manager.reloaded();
    }
}

/// The pulse of a listener: when its loop last said that it lives. That lies in memory which the supervisor sees.
#[derive(Debug)]
pub struct Pulse {
    /// In milliseconds after the epoch; 0 where there was none yet.
    last: Shared<AtomicU64>,
    /// The clock is the same in all processes.
    epoch: Instant,
    /// How often it is to beat.
    every: Option<Duration>,
    /// After so long without a beat the listener is taken for dead.
    patience: Duration,
    /// Since when there is a listener that can be expected to show that it lives.
    since: Cell<Option<Instant>>,
    /// When the supervisor looked last.
    looked: Cell<Instant>,
}

impl Pulse {
    fn new(every: Option<Duration>, patience: Duration) -> io::Result<Self> {
        let epoch = Instant::now();
        Ok(Self {
            last: Shared::new(1)?,
            epoch,
            every,
            patience,
            since: Cell::new(None),
            looked: Cell::new(epoch),
        })
    }

    /// A listener begins, and has as much time as any other to show that it lives.
    pub fn begin(&self) {
        self.since.set(Some(Instant::now()));
    }

    /// How the loop of these signals beats, in the listener.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn watch(self: &Rc<Self>, signals: Signals) -> io::Result<Signals> {
        signals.watched_by(Rc::clone(self) as Rc<dyn Watcher>, self.every)
    }

    fn last(&self) -> Instant {
        self.epoch + Duration::from_millis(self.last[0].load(Ordering::Relaxed))
    }

    /// Whether it beats, or there was never one that could.
    fn is_felt(&self) -> bool {
        self.since.get().is_none() || self.last().elapsed() < self.patience / 2
    }

    /// Whether the listener is to be given up: of each that is said once. To be asked several times while its patience
    /// lasts.
    pub fn is_lost(&self) -> bool {
        let slept = self.looked.replace(Instant::now()).elapsed();
        let Some(since) = self.since.get() else {
            return false;
        };
        if slept >= self.patience / 2 {
            // What the supervisor slept through the listener may have slept through, too.
            self.begin();
            return false;
        }
        let lost = since.max(self.last()).elapsed() >= self.patience;
        if lost {
            // Far away: until then another one has begun.
            self.since.set(since.checked_add(FAR));
        }
        lost
    }
}

impl Watcher for Pulse {
    fn lives(&self) {
        let now = self.epoch.elapsed().as_millis() as u64;
        self.last[0].store(now, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// That of a listener that began so long ago, and beat so long ago, where it did.
    fn pulse(begun: u64, beat: Option<u64>) -> Pulse {
        let ago = |seconds| {
            let then = Instant::now().checked_sub(Duration::from_secs(seconds));
            then.expect("a machine that is up")
        };
        let pulse = Pulse::new(None, PATIENCE).expect("memory");
        let pulse = Pulse {
            epoch: ago(100),
            ..pulse
        };
        pulse.since.set(Some(ago(begun)));
        if let Some(beat) = beat {
            pulse.last[0].store(1000 * (100 - beat), Ordering::Relaxed);
        }
        pulse
    }

    #[test]
    fn nobody_is_missed_before_there_is_a_listener() {
        let pulse = Pulse::new(None, PATIENCE).expect("memory");
        assert!(pulse.is_felt() && !pulse.is_lost());
    }

    #[test]
    fn a_pulse_is_missed_before_its_listener_is_given_up() {
        for (beat, felt, lost) in [
            (0, true, false),
            (9, true, false),
            (12, false, false),
            (21, false, true),
        ] {
            let pulse = pulse(50, Some(beat));
            assert_eq!((pulse.is_felt(), pulse.is_lost()), (felt, lost), "{beat}");
        }
    }

    #[test]
    fn a_listener_has_time_to_begin_but_its_word_is_waited_for() {
        for (begun, beat, lost) in [(1, None, false), (21, None, true), (1, Some(50), false)] {
            let pulse = pulse(begun, beat);
            assert_eq!((pulse.is_felt(), pulse.is_lost()), (false, lost), "{begun}");
        }
    }

    #[test]
    fn each_listener_is_given_up_once() {
        let pulse = pulse(50, Some(30));
        assert!(pulse.is_lost() && !pulse.is_lost());
        pulse.begin();
        assert!(!pulse.is_lost() && !pulse.is_felt());
        pulse.lives();
        assert!(!pulse.is_lost() && pulse.is_felt());
    }

    #[test]
    fn what_the_supervisor_slept_through_is_nobodys_fault() {
        let pulse = pulse(50, Some(21));
        pulse
            .looked
            .set(pulse.looked.get() - Duration::from_secs(12));
        assert!(!pulse.is_lost());
        assert!(!pulse.is_lost());
    }
}
