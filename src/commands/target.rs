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
    Ok(describe(target, open)?.0)
}

/// The same, and how many blocks the file has, where that is known.
///
/// # Errors
/// As [`hash_of`].
pub fn describe(target: &Target, open: Open<'_>) -> anyhow::Result<(CascadeHash, Option<u32>)> {
    match target {
        Target::Hash(hash) => Ok((*hash, None)),
        Target::CascadeFile(path) => {
            let cascade = read_cascade_with(path, open)?;
            Ok((cascade.hash(), Some(cascade.geometry().blocks())))
        }
    }
}
