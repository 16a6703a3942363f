//! Files that appear whole or not at all: written where they have no name, or another one, synced, and given their name.
//!
//! A file without a name is gone with whoever is killed while it writes. To replace another it needs one for the moment of
//! the rename; and there are file systems that know none without (NFS). What is left then has a name that tells whose it
//! is: [`sweep`] removes it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{geteuid, linkat};

use crate::sys::support::is_unsupported_io;

/// A temporary name is that of the file, as far as there is room, between a dot and this, sixteen digits, and [`END`].
const MIDDLE: &[u8] = b".cascade-";
const END: &[u8] = b".tmp";
/// How much of the name there is room for: a name has 255 bytes at most.
const ROOM: usize = 220;

/// What to do about a file that already has the final name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Leave it alone: the write fails with [`io::ErrorKind::AlreadyExists`], even if it appeared this moment.
    Keep,
    /// Put the new file in its place, if it is a regular file; whoever has the old one open keeps it.
    Replace,
}

/// Writes a file so that `path` never names a part of it, and so that it survives a crash once this returns.
///
/// The file gets the mode of any new file (0666 less the umask). A symbolic link that is to be replaced stays, and
/// what it points at is replaced.
///
/// # Errors
/// As open(2), write(2), fsync(2) and rename(2); no temporary file is left then.
pub fn write(path: &Path, contents: &[u8], existing: Existing) -> io::Result<()> {
    write_with(path, existing, |file| file.write_all(contents))
}

/// As [`write`], for contents that are made as they are written.
///
/// # Errors
/// As [`write`], and those of `contents`.
pub fn write_with(
    path: &Path,
    existing: Existing,
    contents: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let target = match existing {
        Existing::Keep => path.to_owned(),
        Existing::Replace => replaceable(path)?,
    };
    let directory = directory_of(&target);
    let (mut file, temporary) = match nameless(&directory) {
        Ok(file) => (file, None),
        Err(_) => Temporary::create(&target).map(|(file, name)| (file, Some(name)))?,
    };
    contents(&mut file)?;
    file.sync_all()?;
    let temporary = match (temporary, existing) {
        (Some(temporary), _) => temporary,
        (None, Existing::Keep) => match link(&file, &target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Temporary::of(file, &target)?
            }
            linked => return linked.and_then(|()| sync_directory(&directory)),
        },
        (None, Existing::Replace) => Temporary::of(file, &target)?,
    };
    temporary.rename(&target, existing)?;
    sync_directory(&directory)
}

/// Removes what is left beside a file of those who were killed when they were about to replace it, and answers how much
/// that was. Nobody may be writing the file meanwhile.
///
/// Only regular files go, of this user, whose names are of the form that is made here for this file.
///
/// # Errors
/// Where the directory cannot be read.
pub fn sweep(path: &Path) -> io::Result<usize> {
    let target = replaceable(path)?;
    let (user, mut removed) = (geteuid().as_raw(), 0);
    for entry in fs::read_dir(directory_of(&target))? {
        let entry = entry?;
        let is_left = is_temporary(&entry.file_name(), &target)
            && entry
                .metadata()
                .is_ok_and(|there| there.is_file() && there.uid() == user);
        if is_left && fs::remove_file(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Makes the names in a directory survive a crash.
///
/// # Errors
/// As fsync(2). A directory that cannot be opened for it, and a file system that cannot sync one, are no failure of the
/// file: its name is there.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    let Ok(directory) = File::open(directory) else {
        return Ok(());
    };
    match directory.sync_all() {
        Err(error) if is_unsupported_io(&error) => Ok(()),
        result => result,
    }
}

/// Renames a file (not a directory) unless the new name is taken, without a moment in between.
///
/// # Errors
/// As rename(2); [`io::ErrorKind::AlreadyExists`] where `to` exists. Where a file system can neither do that nor link,
/// there is such a moment.
pub fn rename_noreplace(from: &Path, to: &Path) -> io::Result<()> {
    match rename_flagged(from, to) {
        // Old kernels and some file systems (NFS) do not know the flag.
        Err(error) if is_unsupported_io(&error) => rename_by_link(from, to),
        result => result,
    }
}

fn rename_by_link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        // Some file systems know no links either (exFAT by FUSE): whoever makes a file of this name between the look and
        // the rename loses it, and there is no better way.
        Err(error) if is_unsupported_io(&error) => match fs::symlink_metadata(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn rename_flagged(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    Ok(renameat2(
        AT_FDCWD,
        from,
        AT_FDCWD,
        to,
        RenameFlags::RENAME_NOREPLACE,
    )?)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn rename_flagged(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The directory in which a path's last component lies.
pub fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) => PathBuf::from("."),
        None => PathBuf::from("/"),
    }
}

/// The file whose place is taken when `path` is replaced. A device or a pipe is none: as root, a rename would
/// destroy `/dev/null`.
fn replaceable(path: &Path) -> io::Result<PathBuf> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            if fs::symlink_metadata(path)?.is_symlink() {
                fs::canonicalize(path)
            } else {
                Ok(path.to_owned())
            }
        }
        Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        Err(error) => Err(error),
    }
}

/// A new file that has no name yet, where the file system has such.
fn nameless(directory: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(directory)
}

/// Gives a file without a name this one, if it is free.
fn link(file: &File, path: &Path) -> io::Result<()> {
    // By its descriptor, which kernels before 6.10 let only root do; or by that in /proc, which may not be there.
    match linkat(file, "", AT_FDCWD, path, AtFlags::AT_EMPTY_PATH) {
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::EEXIST) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => {
            let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
            let flags = AtFlags::AT_SYMLINK_FOLLOW;
            Ok(linkat(AT_FDCWD, &*descriptor, AT_FDCWD, path, flags)?)
        }
    }
}

/// A file that is removed when it goes out of scope.
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// Makes a new file of a name that nobody can foresee.
    fn create(target: &Path) -> io::Result<(File, Self)> {
        Self::named(target, |path| {
            OpenOptions::new().write(true).create_new(true).open(path)
        })
    }

    /// Gives such a name to a file without one; to a copy of it, where that cannot be.
    fn of(mut file: File, target: &Path) -> io::Result<Self> {
        if let Ok(((), temporary)) = Self::named(target, |path| link(&file, path)) {
            return Ok(temporary);
        }
        let (mut copy, temporary) = Self::create(target)?;
        file.rewind()?;
        copy_by_hand(&mut file, &mut copy)?;
        copy.sync_all()?;
        Ok(temporary)
    }

    fn named<T>(target: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(T, Self)> {
        // The keys are random per process and differ per call; a forked child that repeats its parent's finds the
        // name taken and tries the next.
        loop {
            let random = RandomState::new().hash_one(std::process::id());
            let path = target.with_file_name(temporary_name(target, random));
            match make(&path) {
                Ok(made) => {
                    let renamed = false;
                    return Ok((made, Self { path, renamed }));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn rename(mut self, target: &Path, existing: Existing) -> io::Result<()> {
        match existing {
            Existing::Keep => rename_noreplace(&self.path, target)?,
            Existing::Replace => fs::rename(&self.path, target)?,
        }
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // The error that led here says more than one about a file that could not be removed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Copies with calls that the sandbox allows; io::copy makes others, where it can.
fn copy_by_hand(from: &mut File, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What the temporary names of a file begin with.
fn beginning(target: &Path) -> Vec<u8> {
    let name = target.file_name().unwrap_or_default().as_bytes();
    [b".", &name[..name.len().min(ROOM)], MIDDLE].concat()
}

fn temporary_name(target: &Path, random: u64) -> OsString {
    let digits = format!("{random:016x}");
    OsString::from_vec([&beginning(target), digits.as_bytes(), END].concat())
}

fn is_temporary(name: &OsStr, target: &Path) -> bool {
    let name = name.as_bytes().strip_prefix(&*beginning(target));
    let digits = name.and_then(|name| name.strip_suffix(END));
    digits.is_some_and(|digits| {
        digits.len() == 16
            && digits
                .iter()
                .all(|digit| b"0123456789abcdef".contains(digit))
    })
}

#[cfg(test)]
mod tests;
