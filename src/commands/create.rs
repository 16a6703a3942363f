//! `cascade create`: describes data files.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, SigmaskHow};

use super::Status;
use super::files::{cannot, check_directory, cores, for_each, one_file_only};
use super::progress::Work;
use crate::cascade_file::{CascadeFile, default_block_size};
use crate::cli::Create;
use crate::output::{print_bytes, sum_line};
use crate::store::atomic::{self, Existing, directory_of};
use crate::store::create::describe;
use crate::store::names::cascade_path;
use crate::store::open_data;
use crate::text::escape_path;

/// Writes a cascade file for each data file and prints its hash.
///
/// # Errors
/// In how it was called; errors with a file are said, and it goes on with the next.
pub fn run(options: &Create) -> anyhow::Result<Status> {
    one_file_only(&options.output, &options.files)?;
    if let Some(directory) = &options.directory {
        check_directory(directory)?;
    }
    let length = |file: &PathBuf| file.metadata().map_or(0, |metadata| metadata.len());
    let files = options.files.iter();
    let shown = files.clone().map(|file| (escape_path(file), length(file)));
    let mut work = Work::new("hashing", shown);
    let files: Vec<(usize, &PathBuf)> = files.enumerate().collect();
    Ok(for_each(&files, |(index, file)| {
        let created = create(options, file, &mut work, *index);
        work.finish(*index);
        created
    }))
}

/// A signal in the long part, the hashing, may simply end the process: nothing has been written yet.
fn create(options: &Create, file: &Path, work: &mut Work, index: usize) -> anyhow::Result<Status> {
    let data = open_data(file).map_err(|error| cannot("read", file, error))?;
    let metadata = data
        .metadata()
        .map_err(|error| cannot("read", file, error))?;
    let output = output_of(
        options.output.as_deref(),
        options.directory.as_deref(),
        file,
    );
    check_output(&output, options.force, &metadata)?;

    let block_size = options
        .block_size
        .unwrap_or_else(|| default_block_size(metadata.len()));
    let cascade = work
        .observe(index, |observer| {
            describe(&data, block_size, cores(), observer)
        })
        .map_err(|error| cannot("hash", file, error))?;
    let existing = if options.force {
        Existing::Replace
    } else {
        Existing::Keep
    };
    write(&output, &cascade, existing)?;
    work.aside(|| print_bytes(&sum_line(&cascade.hash(), &output)))?;
    Ok(Status::Done)
}

/// Describes data, as `create` does without options, and shows how far that is. For a process that does not fork.
///
/// # Errors
/// Where they cannot be read.
pub fn describe_data(file: &Path, data: &File) -> anyhow::Result<CascadeFile> {
    let metadata = data
        .metadata()
        .map_err(|error| cannot("read", file, error))?;
    let shown = (escape_path(file), metadata.len());
    let mut work = Work::new("hashing", [shown].into_iter());
    let block_size = default_block_size(metadata.len());
    work.observe(0, |observer| describe(data, block_size, cores(), observer))
        .map_err(|error| cannot("hash", file, error))
}

/// Writes a cascade file, so that there is all of it or nothing.
///
/// # Errors
/// As [`atomic::write`].
pub fn write_cascade(output: &Path, cascade: &CascadeFile, existing: Existing) -> io::Result<()> {
    uninterrupted(|| atomic::write(output, &cascade.encode(), existing))
}

fn write(output: &Path, cascade: &CascadeFile, existing: Existing) -> anyhow::Result<()> {
    write_cascade(output, cascade, existing)
        .with_context(|| format!("cannot write {}", escape_path(output)))
}

/// Where the cascade file of a data file goes.
pub fn output_of(output: Option<&Path>, directory: Option<&Path>, file: &Path) -> PathBuf {
    if let Some(output) = output {
        return output.into();
    }
    match directory {
        Some(directory) => cascade_path(&directory.join(file.file_name().unwrap_or_default())),
        None => cascade_path(file),
    }
}

/// Finds out before the hashing what would be in the way after it.
///
/// # Errors
/// What is.
pub fn check_output(output: &Path, force: bool, data: &std::fs::Metadata) -> anyhow::Result<()> {
    let write_it = || format!("cannot write {}", escape_path(output));
    match output.metadata() {
        Ok(old) if (old.dev(), old.ino()) == (data.dev(), data.ino()) => {
            bail!("{}: it is the data file itself", write_it())
        }
        _ if !force && output.symlink_metadata().is_ok() => {
            bail!("{}: it exists (-f replaces it)", write_it())
        }
        Ok(old) if old.is_dir() => {
            Err(io::Error::from(io::ErrorKind::IsADirectory)).with_context(write_it)
        }
        Ok(old) if !old.is_file() => bail!("{}: not a regular file", write_it()),
        _ => {
            let directory = directory_of(output).metadata().with_context(write_it)?;
            if !directory.is_dir() {
                return Err(io::Error::from(io::ErrorKind::NotADirectory)).with_context(write_it);
            }
            Ok(())
        }
    }
}

/// Does what must not be left half done: signals wait, and kill afterwards. The hashing threads have ended, and so
/// no other thread can take them.
fn uninterrupted(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let result = work();
    before.thread_set_mask()?;
    result
}
