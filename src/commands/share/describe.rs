//! The cascade files of what is to be shared: those that are there, and those that are made.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::cascade_file::CascadeFile;
use crate::cli;
use crate::commands::create::{check_output, describe_data, output_of, write_cascade};
use crate::commands::files::{cannot, check_directory, one_file_only, read_cascade};
use crate::exit::Status;
use crate::logging::{complain, exit_code};
use crate::net::link::FileName;
use crate::node::FileState;
use crate::share::Shared;
use crate::store::atomic::Existing;
use crate::store::open_data;
use crate::sys::child::{self, How};
use crate::sys::fork;
use crate::text::{escape_path, size};
use crate::wire::peer::MAX_META;

/// Exit status of a child whose cascade file has no place on a disk: it is in memory only.
const ONLY_IN_MEMORY: u8 = 9;

/// Sees to it that each file has a cascade file; says which cannot be shared, and goes on with the others.
///
/// # Errors
/// In how it was called.
pub fn describe(options: &cli::Share) -> anyhow::Result<(Vec<Shared>, Status)> {
    one_file_only(&options.output, &options.files)?;
    if let Some(directory) = &options.directory {
        check_directory(directory)?;
    }
    let (mut shared, mut status): (Vec<Shared>, _) = (Vec::new(), Status::Done);
    for data in &options.files {
        if data.extension() == Some(OsStr::new("cascade")) {
            let name = escape_path(data);
            log::warn!("{name} is skipped: a cascade file goes with the file that it describes");
            continue;
        }
        match describe_file(options, data) {
            Ok(file) if shared.iter().any(|other| other.data == file.data) => {}
            Ok(file) => {
                if shared.iter().any(|other| other.name == file.name) {
                    let name = file.name.as_str();
                    log::warn!(
                        "{}: another file has the name {name} as well; whoever gets both needs two directories",
                        escape_path(data)
                    );
                }
                shared.push(file);
            }
            Err(error) => {
                complain(&error);
                status = Status::Failed;
            }
        }
    }
    ensure!(
        !shared.is_empty() || status != Status::Done,
        "nothing is left to be shared: name the files themselves"
    );
    Ok((shared, status))
}

fn describe_file(options: &cli::Share, path: &Path) -> anyhow::Result<Shared> {
    let data = open_data(path).map_err(|error| cannot("read", path, error))?;
    let name = name_in_link(path)?;
    let output = output_of(
        options.output.as_deref(),
        options.directory.as_deref(),
        path,
    );
    let made = match !options.force && output.exists() {
        true => Made {
            described: read_cascade(&output)?,
            cascade: output,
            hashed: None,
            in_memory: None,
        },
        false => make(options, path, &data, output)?,
    };
    check_size(
        path,
        &made.described,
        data.metadata().map_or(0, |data| data.len()),
    )?;
    Ok(Shared {
        data: path.into(),
        name,
        hash: made.described.hash(),
        geometry: made.described.geometry(),
        cascade: made.cascade,
        is_printed: false,
        hashed: made.hashed,
        in_memory: made.in_memory,
    })
}

fn name_in_link(path: &Path) -> anyhow::Result<FileName> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let sharing = || {
        format!(
            "cannot share {}: a link cannot carry its name",
            escape_path(path)
        )
    };
    // What is not text has replacement characters now, and is another name.
    ensure!(path.ends_with(&*name), "{}: it is not UTF-8", sharing());
    name.parse().with_context(sharing)
}

/// Others fetch the cascade file from peers, which send none that is larger.
fn check_size(path: &Path, described: &CascadeFile, length: u64) -> anyhow::Result<()> {
    let bytes = 64 + 32 * u64::from(described.geometry().blocks());
    if bytes <= MAX_META {
        return Ok(());
    }
    let name = escape_path(path);
    let (has, most) = (size(bytes), size(MAX_META));
    let larger = larger_block_size(length);
    bail!(
        "cannot share {name}: its cascade file has {has}, and peers send at most {most}; make it anew with larger blocks: cascade create -f -b {larger} {name}"
    )
}

/// A block size with which the cascade file is far from too large.
fn larger_block_size(length: u64) -> u64 {
    let fits = |size: &u64| length.div_ceil(*size) <= MAX_META / 64;
    let sizes = (16..63).map(|bits| 1 << bits);
    sizes.into_iter().find(fits).unwrap_or(1 << 63)
}

/// A cascade file.
struct Made {
    described: CascadeFile,
    cascade: PathBuf,
    hashed: Option<FileState>,
    in_memory: Option<Arc<File>>,
}

/// Makes a cascade file in a child: hashing takes threads, and this process forks.
fn make(options: &cli::Share, path: &Path, data: &File, output: PathBuf) -> anyhow::Result<Made> {
    let sharing = || format!("cannot share {}", escape_path(path));
    let metadata = data.metadata().with_context(sharing)?;
    check_output(&output, options.force, &metadata).with_context(sharing)?;
    let before = FileState::of(data).with_context(sharing)?;
    let memory = File::from(
        memfd_create("cascade file", MFdFlags::MFD_CLOEXEC)
            .context("no memory can be had for its cascade file")
            .with_context(sharing)?,
    );
    let is_named = options.output.is_some() || options.directory.is_some();
    let existing = match options.force {
        true => Existing::Replace,
        false => Existing::Keep,
    };
    let body = || {
        let mut only_in_memory = false;
        let made = exit_code(
            "hashing",
            (|| {
                let cascade = describe_data(path, data)?;
                (&memory).write_all(&cascade.encode())?;
                match write_cascade(&output, &cascade, existing) {
                    Err(error) if !is_named && is_read_only(&error) => only_in_memory = true,
                    written => written.map_err(|error| cannot("write", &output, error))?,
                }
                Ok(())
            })(),
        );
        if only_in_memory { ONLY_IN_MEMORY } else { made }
    };
    let pid = fork::spawn_leaf(&[data.as_fd(), memory.as_fd()], body).with_context(sharing)?;
    let only_in_memory = match child::wait(pid).with_context(sharing)? {
        How::Exited(0) => false,
        How::Exited(status) if status == i32::from(ONLY_IN_MEMORY) => true,
        How::Exited(1) => bail!("{}: its cascade file was not made", sharing()),
        how => bail!(
            "{}: the process that makes its cascade file ended: {how}",
            sharing()
        ),
    };
    let described = CascadeFile::read_open(&memory).with_context(sharing)?;
    let unchanged = |after: &FileState| *after == before;
    let hashed = FileState::of(data).ok().filter(unchanged);
    if !only_in_memory {
        return Ok(Made {
            described,
            cascade: output,
            hashed,
            in_memory: None,
        });
    }
    log::warn!(
        "{}: its directory cannot be written to, so that its cascade file is in memory only (-d puts it elsewhere)",
        escape_path(path)
    );
    Ok(Made {
        described,
        cascade: format!("/proc/self/fd/{}", memory.as_raw_fd()).into(),
        hashed,
        in_memory: Some(Arc::new(memory)),
    })
}

/// Whether this error says that nothing can be written in a directory.
fn is_read_only(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

#[cfg(test)]
mod tests {
    use super::larger_block_size;

    #[test]
    fn with_larger_blocks_a_cascade_file_is_far_from_too_large() {
        assert_eq!(larger_block_size(0), 1 << 16);
        assert_eq!(larger_block_size(1 << 36), 1 << 16);
        assert_eq!(larger_block_size((1 << 36) + 1), 1 << 17);
        assert_eq!(larger_block_size(u64::MAX), 1 << 44);
    }
}
