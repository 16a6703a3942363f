//! Whether a download can still be completed.

use std::time::{Duration, Instant};

use super::{Downloader, Ending, Figure, Task};
use crate::text::count;

/// A loop that did not come round for so long was stopped (SIGSTOP, or a machine that slept).
const STOPPED: Duration = Duration::from_secs(1);
/// A download to which nothing came for so long waits for others than those whom it knows.
const STALLED: Duration = Duration::from_secs(10);
/// The shortest turn of a download that has a timeout.
const CHANCE: Duration = Duration::from_secs(2);

/// From when on nothing has arrived. A turn that ended without a byte counts, but each turn is a chance.
pub(super) fn heard(task: &Task<'_>) -> Instant {
    let now = Instant::now();
    let chance = task
        .timeout
        .and_then(|timeout| now.checked_sub(timeout.saturating_sub(CHANCE)));
    chance.map_or(task.arrived, |chance| chance.max(task.arrived))
}

impl Downloader<'_> {
    /// Whether nothing has come for so long that no peer is a source, though some may be connected.
    pub(super) fn is_stalled(&self) -> bool {
        !self.plan.is_complete() && self.heard.0.elapsed() >= STALLED
    }

    /// Whether there is nothing left to wait for.
    pub(super) fn hopeless(&mut self) -> Option<Ending> {
        let path = || crate::text::escape_path(self.task.data.path());
        let received = self.task.progress.get(Figure::Received);
        let now = Instant::now();
        let asleep = now.duration_since(std::mem::replace(&mut self.looked, now));
        if received != self.heard.1 || self.plan.is_complete() {
            self.heard = (now, received);
            self.stall_said = false;
        } else if asleep > STOPPED {
            // This process was stopped, and its workers with it: that time is not the peers' fault.
            self.heard.0 += asleep;
        }
        let missing = self.task.present.blocks() - self.task.present.count();
        let missing = || {
            format!(
                "{missing} of {} blocks are missing",
                self.task.present.blocks()
            )
        };
        if self.is_stalled() && !std::mem::replace(&mut self.stall_said, true) {
            let blocks = count(
                (self.task.present.blocks() - self.task.present.count()) as usize,
                "block",
            );
            log::warn!(
                "{}: {blocks} are with nobody who can be reached{}; waiting (Ctrl-C keeps what is here; --timeout gives up)",
                path(),
                self.said.reasons(self.task.peers)
            );
        }
        if let Some(timeout) = self.task.timeout
            && self.heard.0.elapsed() >= timeout
        {
            let timeout = humantime::format_duration(timeout);
            crate::logging::fail(format_args!(
                "cannot complete {}: nothing arrived for {timeout}{}; {}",
                path(),
                self.said.reasons(self.task.peers),
                missing()
            ));
            return Some(Ending::Missing);
        }
        let hopeless = !self.task.patient && self.task.found.is_none() && self.plan.is_exhausted();
        if hopeless && !self.plan.is_complete() {
            crate::logging::fail(format_args!(
                "cannot complete {}: no peer is left to ask{}; {}; name another peer (-p) or a tracker (-t)",
                path(),
                self.said.reasons(self.task.peers),
                missing()
            ));
            return Some(Ending::Missing);
        }
        None
    }
}
