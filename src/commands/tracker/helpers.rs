//! What a confined tracker has done by others, which are started before it is confined.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::{Target, Tracker};
use crate::confine::keeper::{self, Helper};
use crate::confine::opener::Opener;
use crate::confine::outside::Outside;
use crate::confine::{Confinement, Role};
use crate::faults;
use crate::store::{atomic, open_data};
use crate::text::escape_path;
use crate::tracker::state;

/// The tracker's ends.
#[derive(Debug)]
pub struct Helpers {
    /// Opens the files that say what the operator wants, where there are any.
    pub opener: Option<Opener>,
    /// Writes the state, where it is kept.
    pub writer: Option<Outside>,
}

/// Starts the processes that are needed, and one that keeps them alive.
///
/// # Errors
/// Where they cannot be started, or the state has no place.
pub fn start(options: &Tracker, confinement: &Confinement) -> anyhow::Result<Helpers> {
    let (opener, opening) = opener(options, confinement)?.unzip();
    let state = options.state.as_deref();
    let (writer, writing) = state
        .map(|path| writer(path, confinement))
        .transpose()?
        .unzip();
    let helpers: Vec<Helper<'_>> = opening.into_iter().chain(writing).collect();
    if !helpers.is_empty() {
        let begin = || {
            confinement.become_user()?;
            confinement.gain_nothing()
        };
        keeper::start(helpers, begin).context("cannot begin to serve")?;
    }
    if let (Some(path), Some(writer)) = (state, &writer) {
        let failed = || format!("cannot save {}", escape_path(path));
        writer.wait_until_begun().with_context(failed)?;
    }
    Ok(Helpers { opener, writer })
}

fn opener<'a>(
    options: &'a Tracker,
    confinement: &'a Confinement,
) -> anyhow::Result<Option<(Opener, Helper<'a>)>> {
    let named = options.targets.iter().filter_map(|target| match target {
        Target::CascadeFile(path) => Some(path.clone()),
        Target::Hash(_) => None,
    });
    let paths: Vec<PathBuf> = options.config.iter().cloned().chain(named).collect();
    if paths.is_empty() {
        return Ok(None);
    }
    let begin = || confinement.enter(Role::Opener);
    // Nothing is waited for that is no file: clients would wait, too.
    Ok(Some(Opener::new(paths, begin, open_data)?))
}

fn writer<'a>(
    path: &'a Path,
    confinement: &'a Confinement,
) -> anyhow::Result<(Outside, Helper<'a>)> {
    let directory = atomic::directory_of(&fs::canonicalize(path).unwrap_or(path.to_owned()));
    let begin = move || {
        confinement.enter(Role::Outside {
            writes: Some(&directory),
        })
    };
    let write = move |contents: &mut dyn std::io::Read| {
        faults::at("saver");
        state::copy(path, contents)
    };
    Ok(Outside::new(&escape_path(path), begin, write)?)
}
