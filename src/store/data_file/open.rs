//! Opening files that may be somebody's: never through a symbolic link, never what is no file, one writer at a time.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::geteuid;

use super::{DataError, failed, shown};
use crate::store::atomic::directory_of;
use crate::sys::support::is_unsupported;

/// Opens a regular file; nothing else, and without waiting for the other end of a pipe.
///
/// # Errors
/// [`DataError::NotAFile`], or as open(2).
pub fn open_regular(
    path: &Path,
    options: &OpenOptions,
    follow_links: bool,
) -> Result<File, DataError> {
    let metadata = match follow_links {
        true => fs::metadata(path),
        false => fs::symlink_metadata(path),
    };
    // Looked at before, since to open a device may do something; and after, since it may be another one by then.
    if let Ok(metadata) = metadata {
        assert_regular(path, metadata.file_type())?;
    }
    let no_follow = if follow_links { 0 } else { libc::O_NOFOLLOW };
    let file = options
        .clone()
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | no_follow)
        .open(path)
        .map_err(|error| failed("open", path, error))?;
    let metadata = file
        .metadata()
        .map_err(|error| failed("open", path, error))?;
    assert_regular(path, metadata.file_type())?;
    Ok(file)
}

fn assert_regular(path: &Path, kind: fs::FileType) -> Result<(), DataError> {
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_symlink() => "a symbolic link, which is not followed",
        kind if kind.is_dir() => "a directory",
        _ => "no regular file",
    };
    Err(DataError::NotAFile(shown(path), what))
}

/// Makes a new part, or opens the one that is there. Returns whether it is new.
pub fn create_or_open(path: &Path) -> Result<(File, bool), DataError> {
    let options = OpenOptions::new().read(true).write(true).clone();
    let created = options
        .clone()
        .create_new(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path);
    match created {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = open_regular(path, &options, false)?;
            assert_own(&file, path)?;
            Ok((file, false))
        }
        Err(error) => Err(failed("open", path, error)),
    }
}

/// Fails for a file of another user, who could change what was verified.
///
/// The owner of the directory could remove it anyhow; and there are file systems whose files all have the same owner,
/// that of the mount.
pub fn assert_own(file: &File, path: &Path) -> Result<(), DataError> {
    let owner = file
        .metadata()
        .map_err(|error| failed("open", path, error))?
        .uid();
    let is_own = owner == geteuid().as_raw()
        || fs::metadata(directory_of(path)).is_ok_and(|directory| directory.uid() == owner);
    match is_own {
        true => Ok(()),
        false => Err(DataError::NotOurs(shown(path), owner)),
    }
}

/// Locks the file for this process; a second process does not wait.
pub fn lock(file: &File, path: &Path) -> Result<(), DataError> {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_SETLK(&whole)) {
        Ok(_) => Ok(()),
        Err(Errno::EACCES | Errno::EAGAIN) => Err(DataError::Locked(shown(path))),
        // A file system without locks: better no lock than no download.
        Err(error) if is_unsupported(error) => Ok(()),
        Err(error) => Err(failed("lock", path, error.into())),
    }
}

/// Which file it is: its device and inode.
pub fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Whether `path` itself is the open file.
pub fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(identity(file)? == (metadata.dev(), metadata.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
