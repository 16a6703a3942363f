//! Verification of the data that files hold already, before they are downloaded or served.

use super::{Stage, Supervisor};
use crate::download::progress::Figure;
use crate::exit::Status;
use crate::logging::complain;
use crate::node::hashed;
use crate::node::told::Told;
use crate::node::verifier::{self, Finding};
use crate::store::data_file::{DataError, Origin, Overrides, Prepared};

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
            item.begin_verification();
            if item.data.is_new() {
                self.verified(index, Finding::Download);
            } else if let Some(modified) = hashed::unchanged(&self.settings.hashed, item) {
                item.take_as_right(modified);
                self.verified(index, Finding::Download);
            } else {
                let confinement = &self.settings.confinement;
                item.stage = Stage::Verifying(verifier::start(item, confinement)?);
            }
        }
        Ok(())
    }

    /// Tells whoever runs the node how much of a file was read.
    pub(super) fn tell_checked(&self) {
        for item in &self.items {
            if let Stage::Verifying(_) = item.stage {
                let checked = item.progress.get(Figure::Checked);
                self.settings.tell(Told::Checked(item.hash, checked));
            }
        }
    }

    /// A file was verified: decides what happens next.
    pub(super) fn verified(&mut self, index: usize, finding: Finding) {
        let item = &mut self.items[index];
        item.data.has_copied();
        if item.left_alone {
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
            complain(&anyhow::anyhow!(
                "cannot share {name}: it is not what its cascade file says; -f makes that anew"
            ));
            self.give_up(index, Status::Failed);
            return;
        }
        self.prepare_writing(index, finding.origin());
    }

    /// Opens a file that is not complete for writing, if it may be written.
    fn prepare_writing(&mut self, index: usize, origin: Origin) {
        let allowed = self.overrides();
        let item = &mut self.items[index];
        let found = item.agreement(origin);
        match item.data.prepare_writing(found, allowed) {
            Ok(Prepared::Changed) => item.stage = Stage::Unverified,
            Ok(Prepared::Ready) => item.stage = Stage::Unfinished,
            // A daemon serves what is right of it, if something is.
            Err(error @ DataError::Incomplete { .. }) if self.settings.daemon => {
                log::warn!("{error}; until then what is right is served");
                item.left_alone = true;
                item.freeze();
                item.stage = Stage::Complete;
            }
            Err(error) => {
                complain(&error.into());
                self.give_up(index, Status::Failed);
            }
        }
    }

    /// What the user allows to be done to data that exist.
    pub(super) fn overrides(&self) -> Overrides {
        let sources = &self.settings.sources;
        Overrides {
            replace: sources.force,
            in_place: sources.in_place,
            adopt: sources.adopt,
        }
    }
}
