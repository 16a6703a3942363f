//! The hidden command `compare-part`: a process of a comparison, started by `cascade compare` only.

use anyhow::Context;

use super::Status;
use crate::cli::{ComparePart, Role};
use crate::compare::{cost, crashable, load, part, registry};

/// Becomes the part.
///
/// # Errors
/// Where its parent is not there, or it cannot do what it is for.
pub fn run(options: &ComparePart) -> anyhow::Result<Status> {
    part::die_with(options.parent).context("cannot be a part of a comparison")?;
    match options.role {
        Role::Server => {
            return Err(part::become_command(&options.arguments))
                .context("cannot execute the server");
        }
        Role::Load => load::run().context("cannot generate load")?,
        Role::Cost => cost::run().context("cannot measure costs")?,
        Role::Crashable => crashable::run().context("cannot serve")?,
        Role::Registry => registry::run().context("cannot serve lists")?,
    }
    Ok(Status::Done)
}
