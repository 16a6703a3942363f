//! `CASCADE|HASH` on the command line.

use super::files::read_cascade;
use crate::cli::Target;
use crate::hash::CascadeHash;

/// The hash that a target names: its own, or that of the cascade file.
///
/// # Errors
/// Where the cascade file cannot be read, or is none.
pub fn hash_of(target: &Target) -> anyhow::Result<CascadeHash> {
    match target {
        Target::Hash(hash) => Ok(*hash),
        Target::CascadeFile(path) => Ok(read_cascade(path)?.hash()),
    }
}
