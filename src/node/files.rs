//! The list of files of a node: those that were named, and those of the directory that it watches.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{FileSpec, Settings};
use crate::cascade_file::{CascadeFile, data_path};
use crate::hash::CascadeHash;
use crate::store::open_data;
use crate::text::escape_path;

/// A file that the node is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The cascade file.
    pub cascade: PathBuf,
    /// Where the data lie.
    pub data: PathBuf,
    /// Its name on the network.
    pub hash: CascadeHash,
}

/// The cascade files of the list as it is now, and where their data lie.
///
/// # Errors
/// Where the directory cannot be read.
pub fn list(settings: &Settings) -> anyhow::Result<Vec<FileSpec>> {
    let mut files = settings.files.clone();
    if let Some(directory) = &settings.watch {
        let reading = || format!("cannot read directory {}", escape_path(directory));
        let mut found = Vec::new();
        for entry in directory.read_dir().with_context(reading)? {
            let cascade = entry.with_context(reading)?.path();
            found.extend(data_of(&cascade).map(|data| (cascade, data)));
        }
        found.sort();
        let spec = |(cascade, data)| FileSpec {
            cascade,
            data,
            hash: None,
        };
        files.extend(found.into_iter().map(spec));
    }
    Ok(files)
}

/// Where the data of a cascade file of a directory lie: beside it. Hidden files are none, as for a shell.
fn data_of(cascade: &Path) -> Option<PathBuf> {
    let name = cascade.file_name()?.as_encoded_bytes();
    (!name.starts_with(b".")).then(|| data_path(cascade))?
}

/// The same list with the hashes; each file once.
///
/// # Errors
/// Where a file of it is no cascade file.
pub fn read(settings: &Settings) -> anyhow::Result<Vec<Wanted>> {
    let mut there = HashSet::new();
    let mut wanted = Vec::new();
    for spec in list(settings)? {
        // One that was to be fetched and that nobody had is none.
        if spec.hash.is_some() && !spec.cascade.exists() {
            continue;
        }
        let FileSpec { cascade, data, .. } = spec;
        let reading = || format!("cannot read {}", escape_path(&cascade));
        let file = open_data(&cascade).with_context(reading)?;
        let hash = CascadeFile::read_open(&file).with_context(reading)?.hash();
        if there.insert(data.clone()) {
            wanted.push(Wanted {
                cascade,
                data,
                hash,
            });
        }
    }
    Ok(wanted)
}
