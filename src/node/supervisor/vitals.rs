//! What the supervisor shows of itself, and whether its listener lives.

use nix::sys::signal::Signal;

use super::{Role, Stage, Supervisor};
use crate::daemon::manager::listening_on;
use crate::sys::child;

impl Supervisor<'_> {
    /// Somebody serves: the node is ready, if it was not before.
    pub(super) fn tell_ready(&self) {
        let serves = self.place.listeners.is_empty() || matches!(self.listener, Role::Running(_));
        if serves {
            self.settings
                .vitals
                .ready(&listening_on(&self.place.listeners));
        }
    }

    /// Tells the service manager what the node is at.
    pub(super) fn tell_status(&self) {
        let count = |is: fn(Stage) -> bool| self.items.iter().filter(|item| is(item.stage)).count();
        if self.listener.is_waiting() {
            let left = count(|stage| matches!(stage, Stage::Unverified | Stage::Verifying(_)));
            let status = format!("verifying files: {left} of {} left", self.items.len());
            return self.settings.vitals.status(status);
        }
        let complete = count(|stage| stage == Stage::Complete);
        let given_up = count(|stage| matches!(stage, Stage::GivenUp(_)));
        let given_up = match given_up {
            0 => String::new(),
            given_up => format!(", {given_up} given up"),
        };
        let (listening, files) = (listening_on(&self.place.listeners), self.items.len());
        let status = format!("{listening}; files: {files}, {complete} complete{given_up}");
        self.settings.vitals.status(status);
    }

    /// Ends a listener that hangs: as any that ended, it is started again.
    pub(super) fn feel_pulse(&mut self) {
        if let (Some(pulse), Role::Running(pid)) = (self.settings.vitals.pulse(), self.listener)
            && pulse.is_lost()
        {
            log::warn!("watchdog timeout: the listener, pid {pid}, does not respond; it is killed");
            child::signal(pid, Signal::SIGKILL);
        }
    }
}
