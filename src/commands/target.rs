//! `CASCADE|HASH` on the command line.

use super::files::read_cascade_with;
use crate::cli::Target;
use crate::config::Open;
use crate::hash::CascadeHash;

/// The hash that a target names: its own, or that of the cascade file.
///
/// # Errors
/// Where the cascade file cannot be read, or is none.
pub fn hash_of(target: &Target, open: Open<'_>) -> anyhow::Result<CascadeHash> {
    match target {
        Target::Hash(hash) => Ok(*hash),
        Target::CascadeFile(path) => Ok(read_cascade_with(path, open)?.hash()),
    }
}
