//! Shutdown: the processes of a node are asked to end, and killed if they do not.

use std::io;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{End, Item, REDRAW, REST, Role, Stage, Supervisor, roles, wait_for_signal};
use crate::hash::CascadeHash;
use crate::sys::alarm;
use crate::sys::child;
use crate::sys::signals::Signals;

impl Supervisor<'_> {
    /// Ends every role: the downloaders at once, the listener when its transfers are done or the grace period is over.
    ///
    /// # Errors
    /// Where the children cannot be waited for.
    pub fn stop(&mut self, signals: &Signals, end: &End) -> io::Result<()> {
        self.display.clear();
        if let Some(doors) = &mut self.doors {
            doors.stop();
        }
        self.leave_trackers();
        let mut children = self.children();
        // The processes that say farewell end by themselves, within a second.
        let farewells: Vec<Pid> = self
            .announcers
            .iter()
            .filter_map(|(_, role)| role.pid())
            .collect();
        children
            .iter()
            .filter(|pid| !farewells.contains(pid))
            .for_each(|pid| child::signal(*pid, Signal::SIGTERM));
        let begun = Instant::now();
        let deadline = begun + self.limits.grace + REST;
        // A child that hangs in a file system is not even killed, and what follows may hang there itself.
        alarm::end_after(self.limits.grace + 2 * REST);
        let mut was_said = false;
        while !children.is_empty() {
            let serves = self
                .listener
                .pid()
                .is_some_and(|pid| children.contains(&pid));
            let is_slow = begun.elapsed() >= REST && !self.limits.grace.is_zero();
            if serves && is_slow && !std::mem::replace(&mut was_said, true) {
                self.say_waiting();
            }
            // A terminal that goes away says so twice: itself, and through its shell.
            let again = signals
                .take_any(&[Signal::SIGTERM, Signal::SIGINT])
                .is_some();
            if again || Instant::now() >= deadline {
                children
                    .iter()
                    .for_each(|pid| child::signal(*pid, Signal::SIGKILL));
            }
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => {
                    children.retain(|child| *child != pid)
                }
                Ok(WaitStatus::StillAlive) => wait_for_signal(signals, REDRAW)?,
                Err(Errno::ECHILD) => children.clear(),
                _ => {}
            }
        }
        self.items.iter().for_each(Item::discard_if_unwritten);
        alarm::cancel();
        if matches!(end, End::Signal(_)) {
            self.say_kept();
        }
        Ok(())
    }

    /// Unsubscribes from the trackers, in a process for each, which is given a moment for it.
    fn leave_trackers(&mut self) {
        for (number, (tracker, role)) in self.announcers.iter_mut().enumerate() {
            let Role::Running(pid) = *role else { continue };
            // It may be waiting for an answer: what it would subscribe now would be wrong.
            child::kill(pid);
            let registered = self
                .items
                .iter()
                .filter(|item| item.is_registered_at(number));
            let hashes: Vec<CascadeHash> = registered.map(|item| item.hash).collect();
            let confinement = &self.settings.confinement;
            let farewell = roles::start_farewell(tracker, &self.place, &hashes, confinement);
            *role = match farewell {
                Ok(Some(pid)) => Role::Running(pid),
                Ok(None) | Err(_) => Role::None,
            };
        }
    }

    pub(super) fn children(&self) -> Vec<Pid> {
        let roles = self
            .announcers
            .iter()
            .map(|(_, role)| *role)
            .chain([self.listener, self.fetcher]);
        let of_items = self.items.iter().filter_map(|item| match item.stage {
            Stage::Verifying(pid) | Stage::Downloading(pid) => Some(pid),
            _ => None,
        });
        let leaving = self.leaving.iter().map(|(pid, _)| *pid);
        let doors = self.doors.iter().flat_map(|doors| doors.processes());
        let roles = roles.filter_map(Role::pid);
        roles.chain(of_items).chain(leaving).chain(doors).collect()
    }
}
