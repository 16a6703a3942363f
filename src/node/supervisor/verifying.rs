//! Verification of the data that files hold already, before they are downloaded or served.

use super::{Stage, Supervisor, roles};
use crate::exit::Status;

impl Supervisor<'_> {
    /// Starts a verifier. Files are verified one at a time, since each takes all cores.
    pub(super) fn start_verifiers(&mut self) -> anyhow::Result<()> {
        while !self
            .items
            .iter()
            .any(|item| matches!(item.stage, Stage::Verifying(_)))
        {
            let Some(index) = self
                .items
                .iter()
                .position(|item| item.stage == Stage::Unverified)
            else {
                return Ok(());
            };
            let item = &mut self.items[index];
            item.begin_verification()?;
            if item.data.reading().metadata()?.len() == 0 && !item.data.is_named() {
                self.verified(index);
            } else {
                let confinement = &self.settings.confinement;
                item.stage = Stage::Verifying(roles::start_verifier(item, confinement)?);
            }
        }
        Ok(())
    }

    /// A file was verified: decides what happens next.
    pub(super) fn verified(&mut self, index: usize) {
        let item = &mut self.items[index];
        if item.edited {
            item.freeze();
            item.stage = Stage::Complete;
            return;
        }
        if item.needs_nothing() {
            self.completed(index);
            return;
        }
        if self.settings.seed_only {
            let name = &item.name;
            crate::logging::complain(&anyhow::anyhow!(
                "cannot share {name}: it is not what {name}.cascade says; remove that, and it is made anew"
            ));
            self.give_up(index, Status::Failed);
            return;
        }
        match item
            .data
            .prepare_writing(item.present.count(), self.settings.sources.force)
        {
            Ok(true) => item.stage = Stage::Unverified,
            Ok(false) => {
                item.stage = Stage::Unfinished;
            }
            Err(error) => {
                crate::logging::complain(&error.into());
                self.give_up(index, Status::Failed);
            }
        }
    }
}
