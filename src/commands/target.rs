//! `CASCADE|HASH` on the command line.

use super::files::read_cascade_with;
use crate::cli::Target;
use crate::config::Open;
use crate::hash::CascadeHash;
use crate::store::names::data_path;
use crate::tracker::registry::Description;

/// The hash that a target names: its own, or that of the cascade file.
///
/// # Errors
/// Where the cascade file cannot be read, or is none.
pub fn hash_of(target: &Target, open: Open<'_>) -> anyhow::Result<CascadeHash> {
    Ok(describe(target, open)?.0)
}

/// The same, and what is known of the file where there is its cascade file.
///
/// # Errors
/// As [`hash_of`].
pub fn describe(
    target: &Target,
    open: Open<'_>,
) -> anyhow::Result<(CascadeHash, Option<Description>)> {
    match target {
        Target::Hash(hash) => Ok((*hash, None)),
        Target::CascadeFile(path) => {
            let cascade = read_cascade_with(path, open)?;
            let data = data_path(path).unwrap_or_else(|| path.clone());
            let name = data.file_name().unwrap_or_default().to_string_lossy();
            let description = Description {
                blocks: cascade.geometry().blocks(),
                name: name.into_owned(),
            };
            Ok((cascade.hash(), Some(description)))
        }
    }
}
