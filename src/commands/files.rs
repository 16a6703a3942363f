//! What the commands on files share: opening what the user named, showing names, printing results.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::Status;
use crate::cascade_file::{CascadeFile, ReadError};
use crate::logging::complain;
use crate::store::atomic;
use crate::store::names::cascade_path;
use crate::text::escape_path;

/// Does `command` with each of these files; says what went wrong with one, and goes on with the next. Answers the
/// highest status.
pub fn for_each<F>(files: &[F], mut command: impl FnMut(&F) -> anyhow::Result<Status>) -> Status {
    let run = |file| {
        command(file).unwrap_or_else(|error| {
            complain(&error);
            Status::Failed
        })
    };
    files.iter().map(run).max().unwrap_or(Status::Done)
}

/// Threads to hash on: the cores that this process may use.
pub fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Reads a cascade file.
///
/// # Errors
/// As [`CascadeFile::read`], with its name.
pub fn read_cascade(path: &Path) -> anyhow::Result<CascadeFile> {
    read_cascade_with(path, |path| File::open(path))
}

/// Reads a cascade file that is opened in this way.
///
/// # Errors
/// As [`CascadeFile::read`], with its name.
pub fn read_cascade_with(
    path: &Path,
    open: impl FnOnce(&Path) -> io::Result<File>,
) -> anyhow::Result<CascadeFile> {
    let read = open(path).map_err(ReadError::Io);
    let read = read.and_then(|file| CascadeFile::read_open(&file));
    read.map_err(|error| match error {
        ReadError::Io(_) if path.is_dir() => {
            let advice = or_its_cascade_file(path);
            anyhow::anyhow!("cannot read {}{advice}", escape_path(path))
        }
        ReadError::Io(error) => cannot("read", path, error),
        ReadError::Format(error) => {
            let advice = or_its_cascade_file(path);
            anyhow::anyhow!("cannot read {}: {error}{advice}", escape_path(path))
        }
    })
}

/// What was probably meant where a data file was named.
pub fn or_its_cascade_file(path: &Path) -> String {
    let cascade = cascade_path(path);
    if path.is_dir() {
        return "; it is a directory: name the cascade files in it".into();
    }
    match cascade.exists() {
        true => format!("; did you mean {}?", escape_path(&cascade)),
        false => String::new(),
    }
}

/// "cannot VERB PATH: ERROR".
pub fn cannot(
    verb: &str,
    path: &Path,
    error: impl std::error::Error + Send + Sync + 'static,
) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("cannot {verb} {}", escape_path(path)))
}

/// Fails before any work is done where what `-d` named is no directory.
///
/// # Errors
/// As stat(2).
pub fn check_directory(path: &Path) -> anyhow::Result<()> {
    let use_it = || format!("cannot use directory {}", escape_path(path));
    let metadata = path.metadata().with_context(use_it)?;
    if !metadata.is_dir() {
        bail!("{}: not a directory", use_it());
    }
    Ok(())
}

/// Fails before any work is done where there is no directory for a file that a daemon will make.
///
/// # Errors
/// As [`check_directory`].
pub fn check_places<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> anyhow::Result<()> {
    let mut directories = paths.into_iter().map(|path| atomic::directory_of(path));
    directories.try_for_each(|directory| check_directory(&directory))
}

/// Refuses `-o` with several files.
///
/// # Errors
/// A usage error.
pub fn one_file_only<T, F>(output: &Option<T>, files: &[F]) -> anyhow::Result<()> {
    ensure!(
        output.is_none() || files.len() == 1,
        super::UsageError("cannot use -o with several files")
    );
    Ok(())
}
