//! The data file of a download: where it lies while it is not complete, who may write it, and how it gets its name.
//!
//! * New data grow in `DATA.part`, which becomes `DATA` when all of it is verified.
//! * A `DATA` that exists is completed in place, if at least one of its blocks is valid. Otherwise it is somebody's
//!   other file, and only replaced by force: then too the new data grow in `DATA.part`.
//! * One process writes. The lock is fcntl(2)'s, which belongs to a process and not to a descriptor: it is free the
//!   moment its holder is dead, though a child with a copy of the descriptor may still live. (The holder must never
//!   close another descriptor of the same file before its time, for that would give the lock up.)

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use thiserror::Error;

use super::names::part_path;
use super::{atomic, room};
use crate::faults;

/// Why a data file cannot be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// Another process downloads it.
    #[error("cannot download to {0}: another process is downloading to it")]
    Locked(String),
    /// No block of it belongs to the cascade file.
    #[error(
        "cannot complete {0}: it is another file, none of its blocks is right; use -f to replace it"
    )]
    Foreign(String),
    /// It is a directory, a device, a pipe.
    #[error("cannot use {0} as a data file: it is {1}")]
    NotAFile(String, &'static str),
    /// The system said no.
    #[error("cannot {0} {1}: {2}")]
    Io(&'static str, String, io::Error),
}

/// How the file is written.
#[derive(Debug)]
enum Mode {
    /// It exists under its final name, and may be complete.
    Existing,
    /// It exists under its final name and is being completed.
    InPlace(File),
    /// It grows under another name. What has the final name then is replaced only by force.
    Part {
        path: PathBuf,
        file: File,
        replace: bool,
    },
}

/// An open data file.
#[derive(Debug)]
pub struct DataFile {
    path: PathBuf,
    mode: Mode,
    reading: Arc<File>,
}

impl DataFile {
    /// Opens what there is: the file itself, for reading; or else what is there of its download, or a new one.
    ///
    /// # Errors
    /// Where it is no regular file, cannot be opened, or is being downloaded by another process.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        // What a link points at is the file; it grows beside itself, not beside the link.
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
            let target =
                fs::canonicalize(path).map_err(|error| failed("follow the link", path, error))?;
            return Self::open(&target);
        }
        match open_regular(path, OpenOptions::new().read(true)) {
            Ok(file) => Ok(Self {
                path: path.into(),
                mode: Mode::Existing,
                reading: Arc::new(file),
            }),
            Err(DataError::Io(_, _, error)) if error.kind() == io::ErrorKind::NotFound => {
                Self::open_part(path, false)
            }
            Err(error) => Err(error),
        }
    }

    fn open_part(path: &Path, replace: bool) -> Result<Self, DataError> {
        let part = part_path(path);
        loop {
            let options = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .clone();
            let file = open_regular(&part, &options)?;
            lock(&file, &part)?;
            // The holder before us may have renamed or removed what we waited for.
            if same_file(&file, &part).map_err(|error| failed("open", &part, error))? {
                let reading = open_regular(&part, OpenOptions::new().read(true))?;
                let mode = Mode::Part {
                    path: part,
                    file,
                    replace,
                };
                return Ok(Self {
                    path: path.into(),
                    mode,
                    reading: Arc::new(reading),
                });
            }
        }
    }

    /// Opens the file for writing, now that it is known how many of its blocks are valid. Answers whether it is
    /// another file now, whose blocks have to be verified anew.
    ///
    /// # Errors
    /// Where it must not be written, or cannot be.
    pub fn prepare_writing(&mut self, valid_blocks: u32, force: bool) -> Result<bool, DataError> {
        match self.mode {
            Mode::Part { .. } | Mode::InPlace(_) => Ok(false),
            Mode::Existing if valid_blocks > 0 => {
                let file = open_regular(&self.path, OpenOptions::new().read(true).write(true))?;
                lock(&file, &self.path)?;
                let (one, other) = (identity(&file), identity(&self.reading));
                if !matches!((one, other), (Ok(one), Ok(other)) if one == other) {
                    let error = io::Error::other("it was replaced meanwhile");
                    return Err(failed("write", &self.path, error));
                }
                self.mode = Mode::InPlace(file);
                Ok(false)
            }
            Mode::Existing if force => {
                *self = Self::open_part(&self.path, true)?;
                Ok(true)
            }
            Mode::Existing => Err(DataError::Foreign(shown(&self.path))),
        }
    }

    /// The final name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For reading: to verify, and to serve.
    pub fn reading(&self) -> &Arc<File> {
        &self.reading
    }

    /// For writing, once it was prepared.
    pub fn writing(&self) -> Option<&File> {
        match &self.mode {
            Mode::Existing => None,
            Mode::InPlace(file) | Mode::Part { file, .. } => Some(file),
        }
    }

    /// Whether the file has its final name.
    pub fn is_named(&self) -> bool {
        !matches!(self.mode, Mode::Part { .. })
    }

    /// Reserves the disk space of the whole file, so that a full disk is known before the first request.
    ///
    /// # Errors
    /// Where the disk has no room.
    pub fn reserve(&self, length: u64) -> Result<(), DataError> {
        let Some(file) = self.writing().filter(|_| length > 0) else {
            return Ok(());
        };
        if faults::wants("reserving", "skip") {
            return Ok(());
        }
        room::reserve(file, length).map_err(|error| failed("reserve space for", &self.path, error))
    }

    /// All of it is verified: cuts what is too much, and gives it its name once it is safe on the disk.
    ///
    /// # Errors
    /// Where that fails; everything that was verified is kept.
    pub fn finish(&self, length: u64) -> Result<(), DataError> {
        let fail = |verb| move |error| failed(verb, &self.path, error);
        let Some(file) = self.writing() else {
            return Ok(());
        };
        let named = self.part().unwrap_or(&self.path);
        if !same_file(file, named).map_err(fail("complete"))? {
            return Err(fail("complete")(io::Error::other(
                "it was removed or replaced meanwhile",
            )));
        }
        match file.metadata().map_err(fail("read"))?.len() {
            longer if longer > length => file.set_len(length).map_err(fail("cut"))?,
            shorter if shorter < length => {
                return Err(fail("complete")(io::Error::other(
                    "somebody cut it meanwhile",
                )));
            }
            _ => {}
        }
        file.sync_all().map_err(fail("write"))?;
        let Mode::Part { path, replace, .. } = &self.mode else {
            return Ok(());
        };
        let renamed = if *replace {
            fs::rename(path, &self.path)
        } else {
            atomic::rename_noreplace(path, &self.path)
        };
        renamed.map_err(fail("give its name to"))?;
        atomic::sync_directory(&atomic::directory_of(&self.path)).map_err(fail("write"))
    }

    /// Where the data grow, unless that is under their final name.
    fn part(&self) -> Option<&Path> {
        match &self.mode {
            Mode::Part { path, .. } => Some(path),
            Mode::Existing | Mode::InPlace(_) => None,
        }
    }

    /// Which file it is: two names of one directory entry are the same, however they are written.
    pub fn place(&self) -> PathBuf {
        let directory = atomic::directory_of(&self.path);
        let directory = fs::canonicalize(&directory).unwrap_or(directory);
        self.path
            .file_name()
            .map_or_else(|| self.path.clone(), |name| directory.join(name))
    }

    /// Removes a download of which nothing was verified.
    pub fn discard(&self) {
        if let Mode::Part { path, file, .. } = &self.mode
            && same_file(file, path).unwrap_or(false)
        {
            // If it cannot be removed, it is in nobody's way: the next download begins with it.
            let _ = fs::remove_file(path);
        }
    }
}

fn shown(path: &Path) -> String {
    crate::text::escape_path(path)
}

fn failed(verb: &'static str, path: &Path, error: io::Error) -> DataError {
    DataError::Io(verb, shown(path), error)
}

/// Opens a regular file; nothing else, and without waiting for the other end of a pipe.
fn open_regular(path: &Path, options: &OpenOptions) -> Result<File, DataError> {
    if let Ok(metadata) = fs::metadata(path)
        && !metadata.is_file()
    {
        let what = if metadata.is_dir() {
            "a directory"
        } else {
            "no regular file"
        };
        return Err(DataError::NotAFile(shown(path), what));
    }
    options
        .clone()
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| failed("open", path, error))
}

/// Locks the file for this process; a second process does not wait.
fn lock(file: &File, path: &Path) -> Result<(), DataError> {
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
        Err(Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        Err(error) => Err(failed("lock", path, error.into())),
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Whether `path` names the open file.
fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(identity(file)? == (metadata.dev(), metadata.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
