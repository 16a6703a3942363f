//! `CASCADE|HASH` on the command line.

use anyhow::Context;

use crate::cascade_file::CascadeFile;
use crate::cli::Target;
use crate::hash::CascadeHash;

/// The hash that a target names: its own, or that of the cascade file.
///
/// # Errors
/// Where the cascade file cannot be read, or is none.
pub fn hash_of(target: &Target) -> anyhow::Result<CascadeHash> {
    match target {
        Target::Hash(hash) => Ok(*hash),
        Target::CascadeFile(path) => CascadeFile::read(path)
            .map(|file| file.hash())
            .with_context(|| format!("cannot read {}", path.display())),
    }
}
