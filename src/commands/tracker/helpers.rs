//! What a confined tracker has done by others, which are started before it is confined.

use std::fs;
use std::path::Path;

use anyhow::Context;
use nix::unistd::{Pid, getpid};

use super::wishes;
use crate::cli::{Target, Tracker};
use crate::commands::files;
use crate::config::changes::Said;
use crate::confine::keeper::{self, Helper};
use crate::confine::outside::Outside;
use crate::confine::reader::Reader;
use crate::confine::{Confinement, Role};
use crate::faults;
use crate::store::atomic;
use crate::text::escape_path;
use crate::tracker::lock::Claim;
use crate::tracker::policy::Policy;
use crate::tracker::{lock, state};

/// The tracker's ends.
#[derive(Debug)]
pub struct Helpers {
    /// Reads the files that say what the operator wants, where there are any.
    pub reader: Option<Reader<Policy>>,
    /// Writes the state, where it is kept.
    pub writer: Option<Outside>,
    /// Who keeps both alive.
    pub keeper: Option<Pid>,
}

/// Starts the processes that are needed, and one that keeps them alive.
///
/// # Errors
/// Where they cannot be started, or the state has no place.
pub fn start(options: &Tracker, said: &Said, confinement: &Confinement) -> anyhow::Result<Helpers> {
    let (reader, reading) = reader(options, said, confinement)?.unzip();
    let state = options.state.as_deref();
    if let Some(path) = state {
        let failed = || format!("cannot save {}", escape_path(path));
        files::check_directory(&atomic::directory_of(path)).with_context(failed)?;
    }
    let (writer, writing) = state
        .map(|path| writer(path, confinement))
        .transpose()?
        .unzip();
    let helpers: Vec<Helper<'_>> = reading.into_iter().chain(writing).collect();
    let mut keeper = None;
    if !helpers.is_empty() {
        let tracker = getpid();
        let begin = || {
            confinement.become_user()?;
            confinement.gain_nothing()?;
            // By the user who writes the state, and for as long as somebody lives who can.
            let lock = |path| lock::take(path, Claim::Listening(tracker));
            state.map(lock).transpose()
        };
        keeper = Some(keeper::start(helpers, begin)?);
    }
    if let (Some(path), Some(writer)) = (state, &writer) {
        let failed = || format!("cannot save {}", escape_path(path));
        writer.wait_until_begun().with_context(failed)?;
    }
    Ok(Helpers {
        reader,
        writer,
        keeper,
    })
}

fn reader<'a>(
    options: &Tracker,
    said: &'a Said,
    confinement: &'a Confinement,
) -> anyhow::Result<Option<(Reader<Policy>, Helper<'a>)>> {
    let is_path = |target: &Target| matches!(target, Target::CascadeFile(_));
    if options.config.config.is_none() && !options.targets.iter().any(is_path) {
        return Ok(None);
    }
    let begin = || confinement.enter(Role::Reader);
    let read = || {
        faults::at("reader");
        wishes::policy_now(said)
    };
    Ok(Some(Reader::new(begin, read)?))
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
