//! The last steps of a file of which all blocks are there: on a slow disk they take a while, and the user should know
//! what is happening.

use std::fmt;
use std::time::{Duration, Instant};

use super::item::{Item, Stage};
use crate::download::progress::Figure;

/// What takes no longer is not worth a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The hash of the whole file is computed: so much of it, in percent.
    Checking(u64),
    /// The file is made to survive a crash.
    Syncing,
}

impl Step {
    /// What is done about this file; nothing while blocks are missing.
    pub fn of(item: &Item) -> Option<Self> {
        if !matches!(item.stage, Stage::Downloading(_)) || !item.present.is_full() {
            return None;
        }
        if item.progress.get(Figure::Syncing) != 0 {
            return Some(Self::Syncing);
        }
        let length = item.geometry.length();
        let hashed = item.progress.get(Figure::Hashed).min(length);
        // In 128 bits, for lengths are anything.
        let percent = u128::from(hashed) * 100 / u128::from(length.max(1));
        Some(Self::Checking(percent as u64))
    }

    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checking(_) => "checking",
            Self::Syncing => "syncing",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checking(percent) => write!(
                f,
                "all blocks received; verifying the whole file: {percent} %"
            ),
            Self::Syncing => f.write_str("all blocks received; syncing to disk"),
        }
    }
}

/// Tells once of every step that takes longer than a moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watch {
    /// The step, since when, and whether it was told.
    now: Option<(&'static str, Instant, bool)>,
}

impl Watch {
    /// The step, if this is the time to tell of it.
    pub fn due(&mut self, step: Option<Step>) -> Option<Step> {
        let Some(step) = step else {
            self.now = None;
            return None;
        };
        match &mut self.now {
            Some((name, since, told)) if *name == step.name() => {
                let due = !*told && since.elapsed() >= PATIENCE;
                *told |= due;
                due.then_some(step)
            }
            _ => {
                self.now = Some((step.name(), Instant::now(), false));
                None
            }
        }
    }
}
