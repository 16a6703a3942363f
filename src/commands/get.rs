//! `cascade get`: downloads files, serving what is there meanwhile, and ends.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;

use super::environment::or_environment;
use super::limits::limits;
use super::{Status, UsageError, files};
use crate::cli::{self, Wanted};
use crate::confine::Confinement;
use crate::daemon::sockets::Listen;
use crate::events::Events;
use crate::hash::CascadeHash;
use crate::logging;
use crate::net::address::{HostPort, ListenAddress};
use crate::node::{self, End, FileList, FileSpec, Settings};
use crate::server::{Limits, Model};
use crate::store::names::{self, cascade_path, data_path};
use crate::sys::signals;
use crate::text::escape_path;

/// Downloads, and dies of the signal that interrupted it, so that a shell script sees the truth.
///
/// # Errors
/// Where it cannot begin.
pub fn run(mut options: cli::Get) -> anyhow::Result<Status> {
    logging::set_verbose(options.sources.verbose);
    logging::set_quiet(options.reporting.quiet);
    options.sources.tracker = trackers(options.sources.tracker, &options.files)?;
    if options.sources.tracker.is_empty() && options.sources.peer.is_empty() {
        return Err(UsageError(
            "no tracker or peer given: use a link, -t HOST:PORT or -p HOST:PORT",
        )
        .into());
    }
    if options.output.is_some() && options.files.len() > 1 {
        return Err(
            UsageError("cannot download several files to one: -o goes with one file").into(),
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
        files: FileList {
            named: specify(
                &options.files,
                options.directory.as_deref(),
                options.output.as_deref(),
            )?,
            watch: None,
        },
        files_again: None,
        sources: options.sources,
        events: Events::new(options.reporting.json)?,
        reporting: options.reporting,
        listen: serves.then_some(Listen::At(listen)),
        model: Model::default(),
        limits: limits(Limits::default(), &options.limits),
        daemon: false,
        seed_only: false,
        control: None,
        told: None,
        hashed: Vec::new(),
        witnessed: false,
        seed_for: options.seed_for.unwrap_or(Duration::ZERO),
        timeout: options.timeout,
        vitals: Rc::default(),
    };
    match node::run(settings)? {
        End::Status(status) => Ok(status),
        End::Signal(signal) => signals::die_of(signal),
    }
}

/// The trackers of the command line and of links; where there is none, that of the environment.
///
/// # Errors
/// As [`or_environment`].
pub fn trackers(mut trackers: Vec<HostPort>, files: &[Wanted]) -> anyhow::Result<Vec<HostPort>> {
    for file in files {
        if let Wanted::Link(link) = file
            && !trackers.contains(&link.tracker)
        {
            trackers.push(link.tracker.clone());
        }
    }
    or_environment(trackers)
}

/// Each file with its paths: the data are OUTPUT, or in DIRECTORY, or beside the cascade file; a cascade file that has
/// to be fetched goes beside the data.
///
/// # Errors
/// Where it is not said what the data file is called, and where DIRECTORY is none.
pub fn specify(
    files: &[Wanted],
    directory: Option<&Path>,
    output: Option<&Path>,
) -> anyhow::Result<Vec<FileSpec>> {
    directory.map_or(Ok(()), files::check_directory)?;
    if let Some(output) = output.filter(|output| output.is_dir()) {
        anyhow::bail!(
            "cannot download to {0}: it is a directory; -d {0} puts the data into it",
            escape_path(output)
        );
    }
    let beside = |data: PathBuf, hash: CascadeHash, tracker: Option<&HostPort>| FileSpec {
        cascade: cascade_path(&data),
        data,
        hash: Some(hash),
        tracker: tracker.map(HostPort::to_string),
    };
    let specify = |file: &Wanted| -> anyhow::Result<FileSpec> {
        match (file, output) {
            (Wanted::CascadeFile(cascade), Some(output)) => Ok(FileSpec {
                cascade: cascade.clone(),
                data: output.to_path_buf(),
                hash: None,
                tracker: None,
            }),
            (Wanted::CascadeFile(cascade), None) => Ok(FileSpec {
                cascade: cascade.clone(),
                data: data_path_in(directory, cascade)?,
                hash: None,
                tracker: None,
            }),
            (Wanted::Link(link), None) => {
                let name = Path::new(link.name.as_str());
                let data = directory.map_or_else(|| name.to_path_buf(), |at| at.join(name));
                Ok(beside(data, link.hash, Some(&link.tracker)))
            }
            (Wanted::Link(link), Some(output)) => {
                Ok(beside(output.to_path_buf(), link.hash, Some(&link.tracker)))
            }
            (Wanted::Hash(hash), Some(output)) => Ok(beside(output.to_path_buf(), *hash, None)),
            (Wanted::Hash(_), None) => {
                Err(UsageError("a hash alone has no name: say with -o where the data go").into())
            }
        }
    };
    let specified: Vec<FileSpec> = files.iter().map(specify).collect::<Result<_, _>>()?;
    have_own_places(&specified)?;
    Ok(specified)
}

/// Fails where two files that are known to be different would have one place. What is not known yet is seen later.
fn have_own_places(files: &[FileSpec]) -> anyhow::Result<()> {
    for (index, file) in files.iter().enumerate() {
        let differ = |other: &&FileSpec| other.data == file.data && other.hash != file.hash;
        let mut others = files[..index].iter().filter(|other| other.hash.is_some());
        anyhow::ensure!(
            file.hash.is_none() || !others.any(|other| differ(&other)),
            "cannot download two files to {}: download one of them into another directory (-d)",
            escape_path(&file.data)
        );
    }
    Ok(())
}

/// The data file beside a cascade file, or of the same name in another directory.
fn data_path_in(directory: Option<&Path>, cascade: &Path) -> anyhow::Result<PathBuf> {
    let data = match directory {
        Some(directory) => names::data_path_in(directory, cascade),
        None => data_path(cascade),
    };
    data.with_context(|| {
        format!(
            "cannot tell the data file of {}: its name does not end in .cascade{}",
            escape_path(cascade),
            files::or_its_cascade_file(cascade)
        )
    })
}
