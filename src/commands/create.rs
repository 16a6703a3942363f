//! `cascade create`: describes data files.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, SigmaskHow};

use super::Status;
use super::files::{cannot, check_directory, cores, for_each, one_file_only};
use crate::cascade_file::{CascadeFile, default_block_size};
use crate::cli::Create;
use crate::output::{print_bytes, sum_line};
use crate::store::atomic::{self, Existing, directory_of};
use crate::store::create::describe;
use crate::store::names::cascade_path;
use crate::store::open_data;
use crate::store::pieces::unobserved;
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
    Ok(for_each(&options.files, |file| create(options, file)))
}

/// A signal in the long part, the hashing, may simply end the process: nothing has been written yet.
fn create(options: &Create, file: &Path) -> anyhow::Result<Status> {
    let data = open_data(file).map_err(|error| cannot("read", file, error))?;
    let metadata = data
        .metadata()
        .map_err(|error| cannot("read", file, error))?;
    let output = output_of(options, file);
    check_output(&output, options.force, &metadata)?;

    let block_size = options
        .block_size
        .unwrap_or_else(|| default_block_size(metadata.len()));
    let cascade = describe(&data, block_size, cores(), &unobserved)
        .map_err(|error| cannot("hash", file, error))?;
    let existing = if options.force {
        Existing::Replace
    } else {
        Existing::Keep
    };
    write(&output, &cascade, existing)?;
    print_bytes(&sum_line(&cascade.hash(), &output))?;
    Ok(Status::Done)
}

/// Makes the cascade file of a data file, as `create` does without options.
///
/// # Errors
/// Where one cannot be read, or the other not be written, or exists.
pub fn describe_beside(file: &Path, output: &Path) -> anyhow::Result<()> {
    let data = open_data(file).map_err(|error| cannot("read", file, error))?;
    let metadata = data
        .metadata()
        .map_err(|error| cannot("read", file, error))?;
    check_output(output, false, &metadata)?;
    let block_size = default_block_size(metadata.len());
    let cascade = describe(&data, block_size, cores(), &unobserved)
        .map_err(|error| cannot("hash", file, error))?;
    write(output, &cascade, Existing::Keep)
}

fn write(output: &Path, cascade: &CascadeFile, existing: Existing) -> anyhow::Result<()> {
    uninterrupted(|| atomic::write(output, &cascade.encode(), existing))
        .with_context(|| format!("cannot write {}", escape_path(output)))
}

/// Where the cascade file of a data file goes.
fn output_of(options: &Create, file: &Path) -> PathBuf {
    if let Some(output) = &options.output {
        return output.clone();
    }
    match &options.directory {
        Some(directory) => cascade_path(&directory.join(file.file_name().unwrap_or_default())),
        None => cascade_path(file),
    }
}

/// Finds out before the hashing what would be in the way after it.
fn check_output(output: &Path, force: bool, data: &std::fs::Metadata) -> anyhow::Result<()> {
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
