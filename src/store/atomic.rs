//! Files that appear whole or not at all: written beside their final name, synced, and renamed.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

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
    let (mut file, mut temporary) = Temporary::create(&directory)?;
    contents(&mut file)?;
    file.sync_all()?;
    drop(file);
    match existing {
        Existing::Keep => rename_noreplace(&temporary.path, &target)?,
        Existing::Replace => fs::rename(&temporary.path, &target)?,
    }
    temporary.renamed = true;
    sync_directory(&directory)
}

/// Makes the names in a directory survive a crash.
///
/// # Errors
/// As open(2) and fsync(2); a file system that cannot sync a directory is none.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

/// Renames a file (not a directory) unless the new name is taken, without a moment in between.
///
/// # Errors
/// As rename(2); [`io::ErrorKind::AlreadyExists`] where `to` exists.
pub fn rename_noreplace(from: &Path, to: &Path) -> io::Result<()> {
    match rename_flagged(from, to) {
        // Old kernels and some file systems (NFS) do not know the flag.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        result => result,
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

/// A file that is removed when it goes out of scope.
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// Makes a new file of a name that nobody can foresee.
    fn create(directory: &Path) -> io::Result<(File, Self)> {
        // The keys are random per process and differ per call; a forked child that repeats its parent's finds the
        // name taken and tries the next.
        loop {
            let random = RandomState::new().hash_one(std::process::id());
            let path = directory.join(format!(".cascade-{random:016x}.tmp"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let renamed = false;
                    return Ok((file, Self { path, renamed }));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .expect("readable")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into()
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_existing_file_is_kept_or_replaced_as_asked_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state");
        write(&path, b"one", Existing::Keep).expect("written");
        let error = write(&path, b"two", Existing::Keep).expect_err("it exists");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("readable"), b"one");
        write(&path, b"three", Existing::Replace).expect("replaced");
        assert_eq!(fs::read(&path).expect("readable"), b"three");
        assert_eq!(names(directory.path()), ["state"]);
    }

    #[test]
    fn a_link_stays_and_a_directory_or_a_device_is_not_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "old").expect("written");
        std::os::unix::fs::symlink("file", &link).expect("linked");
        write(&link, b"new", Existing::Replace).expect("replaced");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::read(&file).expect("readable"), b"new");

        let error = write(directory.path(), b"", Existing::Replace).expect_err("a directory");
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let error = write(&pipe, b"", Existing::Replace).expect_err("a pipe");
        assert_eq!(error.to_string(), "not a regular file");
        assert_eq!(names(directory.path()), ["file", "link", "pipe"]);
    }

    #[test]
    fn of_many_writers_that_may_not_replace_one_wins() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state");
        let wins = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| write(&path, b"x", Existing::Keep).is_ok()))
                .collect();
            writers
                .into_iter()
                .filter_map(|writer| writer.join().ok())
                .filter(|won| *won)
                .count()
        });
        assert_eq!(wins, 1);
        assert_eq!(names(directory.path()), ["state"]);
    }

    #[test]
    fn a_bare_name_lies_in_the_working_directory() {
        assert_eq!(directory_of(Path::new("x")), Path::new("."));
        assert_eq!(directory_of(Path::new("a/x")), Path::new("a"));
        assert_eq!(directory_of(Path::new("/x")), Path::new("/"));
    }
}
