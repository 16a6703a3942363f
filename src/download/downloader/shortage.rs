//! A shortage at home: no process, descriptor or memory can be had for a worker. It is no peer's fault and may pass.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::bail;

/// How long nothing at all can be started before a download that is not patient ends.
const LONGEST: Duration = Duration::from_secs(10);
/// How often it is said.
const SAID_AGAIN: Duration = Duration::from_secs(30);

/// The shortage that there is, if there is one.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    /// Since when, and what it is.
    present: Option<(Instant, String)>,
    /// When it was said last.
    said: Option<Instant>,
}

impl Shortage {
    /// Something could not be had; says so now and then.
    pub fn met(&mut self, what: fmt::Arguments<'_>) {
        let (_, text) = self
            .present
            .get_or_insert_with(|| (Instant::now(), String::new()));
        *text = what.to_string();
        if self.said.is_none_or(|said| said.elapsed() >= SAID_AGAIN) {
            self.said = Some(Instant::now());
            log::warn!("{text}; waiting until it can be had");
        }
    }

    /// A worker does its work.
    pub fn is_over(&mut self) {
        self.present = None;
    }

    /// Fails where nothing could be started for long.
    ///
    /// # Errors
    /// What could not be had.
    pub fn check(&self, is_idle: bool) -> anyhow::Result<()> {
        match &self.present {
            Some((since, what)) if is_idle && since.elapsed() >= LONGEST => {
                bail!("{what}; what is here is kept, and the same command goes on")
            }
            _ => Ok(()),
        }
    }
}
