//! `cascade get`: downloads files, serving what is there meanwhile, and ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::environment::or_environment;
use super::limits::limits;
use super::{Status, UsageError};
use crate::cascade_file::data_path;
use crate::cli;
use crate::confine::Confinement;
use crate::logging;
use crate::net::address::ListenAddress;
use crate::node::{self, End, Settings};
use crate::server::{Limits, Model};
use crate::sys::signals;
use crate::text::escape_path;

/// Downloads, and dies of the signal that interrupted it, so that a shell script sees the truth.
///
/// # Errors
/// Where it cannot begin.
pub fn run(mut options: cli::Get) -> anyhow::Result<Status> {
    logging::set_verbose(options.sources.verbose);
    options.sources.tracker = or_environment(options.sources.tracker)?;
    if options.sources.tracker.is_empty() && options.sources.peer.is_empty() {
        return Err(
            UsageError("cannot download from nobody: name a tracker (-t) or a peer (-p)").into(),
        );
    }
    if options.output.is_some() && options.files.len() > 1 {
        return Err(
            UsageError("cannot download several files to one: -o goes with one CASCADE").into(),
        );
    }
    // Without a tracker nobody learns of this peer, unless the user says where it is.
    let known = !options.sources.tracker.is_empty() || !options.listen.is_empty();
    let serves = known && !options.no_serve;
    let listen = if options.listen.is_empty() {
        vec![ListenAddress::any(0)]
    } else {
        options.listen
    };
    let settings = Settings {
        confinement: Confinement::new(&options.confine)?,
        files: with_data_paths(
            &options.files,
            options.directory.as_deref(),
            options.output.as_deref(),
        )?,
        watch: None,
        sources: options.sources,
        listen: serves.then_some(listen),
        model: Model::default(),
        limits: limits(Limits::default(), &options.limits),
        daemon: false,
        seed_for: options.seed_for.unwrap_or(Duration::ZERO),
        timeout: options.timeout,
    };
    match node::run(settings)? {
        End::Status(status) => Ok(status),
        End::Signal(signal) => signals::die_of(signal),
    }
}

/// Each cascade file with its data file: OUTPUT, or DIRECTORY and its name, or beside it.
///
/// # Errors
/// Where a cascade file's name does not say what its data file is called.
pub fn with_data_paths(
    files: &[PathBuf],
    directory: Option<&Path>,
    output: Option<&Path>,
) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    files
        .iter()
        .map(|cascade| {
            if let Some(output) = output {
                return Ok((cascade.clone(), output.to_path_buf()));
            }
            let data = data_path(cascade).with_context(|| {
                format!(
                    "cannot tell the data file of {}: its name does not end in .cascade",
                    escape_path(cascade)
                )
            })?;
            let data = match (directory, data.file_name()) {
                (Some(directory), Some(name)) => directory.join(name),
                _ => data,
            };
            Ok((cascade.clone(), data))
        })
        .collect()
}
