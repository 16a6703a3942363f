//! What the supervisor does when a role ends.

use std::time::Instant;

use super::{DEATHS, REST, Role, Stage, Supervisor};
use crate::download::downloader::Ending;
use crate::events::{Event, Subject};
use crate::exit::Status;
use crate::node::verifier::Finding;
use crate::sys::child::{self, Ended, How};

impl Supervisor<'_> {
    pub(super) fn reap(&mut self) -> anyhow::Result<()> {
        for ended in child::ended() {
            self.ended(ended?);
        }
        Ok(())
    }

    /// Handles the end of a child, depending on its role.
    fn ended(&mut self, ended: Ended) {
        let Ended { pid, how } = ended;
        let doors = self.doors.as_mut();
        if doors.is_some_and(|doors| doors.ended(ended)) {
            // It was said, and it is started again.
        } else if self.has_left(pid) {
            // What it was at is not wanted any more.
        } else if self.listener == Role::Running(pid) {
            log::warn!("the listener ended: {how}; it is started again");
            self.ledger.close();
            self.listener = Role::Due(Instant::now() + REST);
        } else if let Some((tracker, role)) = self
            .announcers
            .iter_mut()
            .find(|(_, role)| *role == Role::Running(pid))
        {
            log::warn!(
                "the announcer for {} ended: {how}; it is started again",
                tracker.name
            );
            *role = Role::Due(Instant::now() + REST);
        } else if self.fetcher == Role::Running(pid) {
            self.fetcher_ended(how);
        } else if let Some(index) = self
            .items
            .iter()
            .position(|item| item.stage == Stage::Verifying(pid))
        {
            self.verifier_ended(index, how);
        } else if let Some(index) = self
            .items
            .iter()
            .position(|item| item.stage == Stage::Downloading(pid))
        {
            self.downloader_ended(index, how);
        } else if let Some(index) = self
            .commands
            .iter()
            .position(|(command, _, _)| *command == pid)
        {
            let (_, name, file) = self.commands.swap_remove(index);
            self.command_ended(&name, file, how);
        }
    }

    fn command_ended(&mut self, name: &str, file: Subject, how: How) {
        let status = how.status();
        let event = || Event::Executed { file, status };
        self.settings.events.emit(event);
        if status != Some(0) {
            crate::logging::complain(&anyhow::anyhow!(
                "cannot finish with {name}: the command of --exec ended: {how}"
            ));
            self.status = self.status.max(Status::Failed);
        }
    }

    fn verifier_ended(&mut self, index: usize, how: How) {
        match how.status().and_then(Finding::from_exit_status) {
            Some(Finding::Changed) => {
                log::warn!(
                    "{} was changed while it was verified; once more",
                    self.items[index].name
                );
                self.rest_or_give_up(index, Stage::Unverified);
            }
            Some(Finding::Failed) => self.give_up(index, Status::Failed),
            Some(finding) => self.verified(index, finding),
            None => {
                log::warn!(
                    "the verification of {} ended: {how}",
                    self.items[index].name
                );
                self.rest_or_give_up(index, Stage::Unverified);
            }
        }
    }

    fn downloader_ended(&mut self, index: usize, how: How) {
        match how.status().and_then(Ending::from_exit_status) {
            Some(Ending::Complete) => self.completed(index),
            Some(Ending::Failed) => self.give_up(index, Status::Failed),
            Some(Ending::Missing) => self.give_up(index, Status::DataMissing),
            // It made room for another file.
            Some(Ending::Stopped) if self.items[index].turn.over => {
                self.items[index].stage = Stage::Unfinished;
            }
            Some(Ending::Stopped) | None => {
                log::warn!(
                    "the download of {} ended: {how}; it is started again",
                    self.items[index].name
                );
                self.rest_or_give_up(index, Stage::Resting(Instant::now() + REST));
            }
        }
    }

    fn rest_or_give_up(&mut self, index: usize, next: Stage) {
        let item = &mut self.items[index];
        item.deaths += 1;
        if item.deaths < DEATHS || self.settings.daemon {
            item.stage = next;
        } else {
            self.give_up(index, Status::Failed);
        }
    }
}
