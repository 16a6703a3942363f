//! The data file of a download: whose it is, where it lies while it is not complete, and how it gets its name.
//!
//! The rules, which cascade-get(1) has under DATA THAT EXIST:
//!
//! * New data grow in a part, `NAME.HASH8.part`, which becomes `NAME` when all of it is verified.
//! * A part is removed only by the run that created it, and only if nothing was written to it.
//! * `NAME.part`, the part of an older cascade or of another program, is taken over where every block that it has is
//!   right, or where the user says so.
//! * A `NAME` that exists and is not complete is somebody's: it is not touched. The user may have it replaced (a new
//!   part is made, and what agrees is copied), or mended where it lies.
//! * Symbolic links, what is no regular file, and files of another owner are never written.
//! * One process writes. The lock is fcntl(2)'s, which belongs to a process and not to a descriptor: it is free the
//!   moment its holder is dead, though a child with a copy of the descriptor may still live. (The holder must never
//!   close another descriptor of the same file before its time, for that would give the lock up.)

mod finish;
mod open;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::names::{old_part_path, part_path};
use super::{atomic, room};
use crate::faults;
use crate::hash::CascadeHash;
use open::{assert_own, create_or_open, identity, lock, open_regular, same_file};

/// Why a data file cannot be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// Another process downloads it.
    #[error(
        "cannot download to {0}: another process is downloading to it; wait for it, or name another place"
    )]
    Locked(String),
    /// It exists and is not complete, and nobody said what is to be done.
    #[error(
        "cannot complete {path}: it exists, and {found}; -f replaces it, --in-place mends it where it lies"
    )]
    Incomplete {
        /// The file.
        path: String,
        /// How much of it agrees.
        found: Agreement,
    },
    /// It was to be mended where it lies, and has nothing in common with the download.
    #[error(
        "cannot mend {0} where it lies: it is another file, none of its blocks is right; \
         -f replaces it, and -f with --in-place overwrites it"
    )]
    Foreign(String),
    /// It was to be mended where it lies, and has several names.
    #[error(
        "cannot mend {0} where it lies: it has {1} hard links, whose content would change; \
         -f with --in-place does it nevertheless, -f alone replaces this one"
    )]
    Linked(String, u64),
    /// It is a symbolic link, a directory, a device, a pipe.
    #[error("cannot use {0} as a data file: it is {1}")]
    NotAFile(String, &'static str),
    /// It belongs to somebody else.
    #[error(
        "cannot write {0}: it belongs to another user ({1}); remove it, or run this as its owner"
    )]
    NotOurs(String, u32),
    /// Its file system has no room for it.
    #[error("cannot reserve space for {0}: {1}")]
    NoRoom(String, room::RoomError),
    /// The system said no.
    #[error("cannot {0} {1}: {2}")]
    Io(&'static str, String, io::Error),
}

/// What the user allows to be done to data that exist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `-f`: replace a `NAME` that is not complete.
    pub replace: bool,
    /// `--in-place`: mend it where it lies.
    pub in_place: bool,
    /// `--adopt`: take `NAME.part` for the beginning of the download.
    pub adopt: bool,
}

/// How much of a file agrees with its cascade file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// Blocks that are right.
    pub right: u32,
    /// Blocks of the download.
    pub blocks: u32,
    /// Bytes of the file beyond the end of the download.
    pub excess: u64,
    /// Whether the file was begun as this download.
    pub origin: Origin,
}

/// What the blocks of a file say of where it comes from. Blocks of zeros say nothing: they are in every disk image, and
/// where nothing was written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// No block with content is right.
    Foreign,
    /// Some are, and others hold something else.
    Mixed,
    /// Each block with content is right, and there is one.
    Download,
}

/// How the file is written.
#[derive(Debug)]
enum Mode {
    /// It has its final name, and is only read.
    Named,
    /// It has its final name, and is mended where it lies.
    InPlace(File),
    /// It is `NAME.part`, which may be the beginning of the download.
    OldPart(PathBuf),
    /// It grows in a part.
    Part(Part),
}

/// A file that grows under another name.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: File,
    /// This process made it.
    created: bool,
    /// What has the final name now, to be replaced.
    replaces: Option<Replaced>,
}

/// A file that is to be replaced.
#[derive(Debug)]
struct Replaced {
    file: Arc<File>,
    /// Which file it is, its length, and when it was changed last: whoever changed it meanwhile keeps it.
    state: (u64, u64, u64, i64, i64),
    /// Its right blocks were copied.
    copied: bool,
}

/// What follows once it is known how much of a file agrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// It can be written.
    Ready,
    /// It is another file now, whose blocks have to be verified.
    Changed,
}

/// An open data file.
#[derive(Debug)]
pub struct DataFile {
    path: PathBuf,
    hash: CascadeHash,
    mode: Mode,
    reading: Arc<File>,
}

impl DataFile {
    /// Opens what there is: the file itself, for reading; or else what is there of its download, or a new part.
    ///
    /// A symbolic link is followed only for reading, where `follow` says so.
    ///
    /// # Errors
    /// Where it is no regular file, cannot be opened, or is being downloaded by another process.
    pub fn open(path: &Path, hash: &CascadeHash, follow: bool) -> Result<Self, DataError> {
        match path.symlink_metadata() {
            Ok(_) => {
                let options = OpenOptions::new().read(true).clone();
                let file = open_regular(path, &options, follow)?;
                Ok(Self::with(path, hash, Mode::Named, file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::open_download(path, hash)
            }
            Err(error) => Err(failed("open", path, error)),
        }
    }

    fn with(path: &Path, hash: &CascadeHash, mode: Mode, reading: File) -> Self {
        Self {
            path: path.into(),
            hash: *hash,
            mode,
            reading: Arc::new(reading),
        }
    }

    /// Opens the part; where there is none, one of an older cascade that may be it; or makes one.
    fn open_download(path: &Path, hash: &CascadeHash) -> Result<Self, DataError> {
        let old = old_part_path(path);
        let is_old = part_path(path, hash).symlink_metadata().is_err()
            && old.symlink_metadata().is_ok_and(|old| old.is_file());
        if is_old && let Ok(file) = open_regular(&old, OpenOptions::new().read(true), false) {
            return Ok(Self::with(path, hash, Mode::OldPart(old), file));
        }
        Self::open_part(path, hash, None)
    }

    fn open_part(
        path: &Path,
        hash: &CascadeHash,
        replaces: Option<Replaced>,
    ) -> Result<Self, DataError> {
        let part = part_path(path, hash);
        loop {
            let (file, created) = create_or_open(&part)?;
            lock(&file, &part)?;
            // The holder before us may have renamed or removed what we waited for.
            if same_file(&file, &part).map_err(|error| failed("open", &part, error))? {
                let reading = open_regular(&part, OpenOptions::new().read(true), false)?;
                let part = Part {
                    path: part,
                    file,
                    created,
                    replaces,
                };
                return Ok(Self::with(path, hash, Mode::Part(part), reading));
            }
        }
    }

    /// Opens the file for writing, now that it is known how much of it agrees.
    ///
    /// # Errors
    /// Where it must not be written, or cannot be. [`DataError::Incomplete`] where only the user can decide.
    pub fn prepare_writing(
        &mut self,
        found: Agreement,
        allowed: Overrides,
    ) -> Result<Prepared, DataError> {
        match &self.mode {
            Mode::Part(_) | Mode::InPlace(_) => Ok(Prepared::Ready),
            Mode::OldPart(old) => {
                let old = old.clone();
                if (allowed.adopt || found.origin == Origin::Download) && self.adopt(&old)? {
                    return Ok(Prepared::Ready);
                }
                if found.right > 0 {
                    let name = shown(&old);
                    log::warn!("{name} is left alone: {found}; --adopt goes on with it");
                }
                *self = Self::open_part(&self.path, &self.hash, None)?;
                Ok(Prepared::Changed)
            }
            Mode::Named if allowed.in_place => self.open_in_place(found, allowed.replace),
            Mode::Named if allowed.replace => self.replace(),
            Mode::Named => Err(DataError::Incomplete {
                path: shown(&self.path),
                found,
            }),
        }
    }

    /// Makes `NAME.part` the part of this download. Returns false where somebody else has it, or it has another name.
    fn adopt(&mut self, old: &Path) -> Result<bool, DataError> {
        let file = open_regular(old, OpenOptions::new().read(true).write(true), false)?;
        assert_own(&file, old)?;
        let is_same = identity(&file).ok() == identity(&self.reading).ok();
        let has_one_name = file.metadata().is_ok_and(|metadata| metadata.nlink() == 1);
        if !is_same || !has_one_name {
            return Ok(false);
        }
        lock(&file, old)?;
        let path = part_path(&self.path, &self.hash);
        atomic::rename_noreplace(old, &path).map_err(|error| failed("adopt", old, error))?;
        log::info!("{} goes on as {}", shown(old), shown(&path));
        self.mode = Mode::Part(Part {
            path,
            file,
            created: false,
            replaces: None,
        });
        Ok(true)
    }

    fn open_in_place(&mut self, found: Agreement, force: bool) -> Result<Prepared, DataError> {
        let path = &self.path;
        let file = open_regular(path, OpenOptions::new().read(true).write(true), false)?;
        assert_own(&file, path)?;
        let links = file.metadata().map_err(|error| failed("read", path, error));
        let links = links?.nlink();
        if links > 1 && !force {
            return Err(DataError::Linked(shown(path), links));
        }
        if found.origin == Origin::Foreign && !force {
            return Err(DataError::Foreign(shown(path)));
        }
        lock(&file, path)?;
        if identity(&file).ok() != identity(&self.reading).ok() {
            let error = io::Error::other("it was replaced meanwhile");
            return Err(failed("write", path, error));
        }
        self.mode = Mode::InPlace(file);
        Ok(Prepared::Ready)
    }

    /// Begins a part that will replace the file.
    fn replace(&mut self) -> Result<Prepared, DataError> {
        let old = open_regular(&self.path, OpenOptions::new().read(true), false)?;
        assert_own(&old, &self.path)?;
        let metadata = old.metadata();
        let metadata = metadata.map_err(|error| failed("read", &self.path, error))?;
        let replaced = Replaced {
            file: Arc::clone(&self.reading),
            state: finish::state(&metadata),
            copied: false,
        };
        *self = Self::open_part(&self.path, &self.hash, Some(replaced))?;
        if let Mode::Part(part) = &self.mode {
            // Where that cannot be kept, the new file has the mode of any.
            let _ = part.file.set_permissions(metadata.permissions());
        }
        Ok(Prepared::Changed)
    }

    /// The file whose right blocks are to be copied first.
    pub fn to_copy(&self) -> Option<&File> {
        match &self.mode {
            Mode::Part(part) => {
                let replaces = part.replaces.as_ref().filter(|replaced| !replaced.copied);
                replaces.map(|replaced| &*replaced.file)
            }
            _ => None,
        }
    }

    /// What was to be copied is there.
    pub fn has_copied(&mut self) {
        if let Mode::Part(part) = &mut self.mode
            && let Some(replaced) = &mut part.replaces
        {
            replaced.copied = true;
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
            Mode::Named | Mode::OldPart(_) => None,
            Mode::InPlace(file) => Some(file),
            Mode::Part(part) => Some(&part.file),
        }
    }

    /// Whether the file has its final name.
    pub fn is_named(&self) -> bool {
        matches!(self.mode, Mode::Named | Mode::InPlace(_))
    }

    /// Whether it is known which file will be written, and so which is served.
    pub fn is_settled(&self, allowed: Overrides) -> bool {
        match self.mode {
            Mode::OldPart(_) => false,
            Mode::Named => !allowed.replace || allowed.in_place,
            Mode::InPlace(_) | Mode::Part(_) => true,
        }
    }

    /// Whether there is nothing to verify: this run made it, and has nothing to copy to it.
    pub fn is_new(&self) -> bool {
        let is_created = matches!(&self.mode, Mode::Part(part) if part.created);
        is_created && self.to_copy().is_none()
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
        room::reserve(file, length).map_err(|error| DataError::NoRoom(shown(&self.path), error))
    }

    /// Which file it is: two names of one directory entry are the same, however they are written.
    pub fn place(&self) -> PathBuf {
        let directory = atomic::directory_of(&self.path);
        let directory = directory.canonicalize().unwrap_or(directory);
        self.path
            .file_name()
            .map_or_else(|| self.path.clone(), |name| directory.join(name))
    }
}

fn shown(path: &Path) -> String {
    crate::text::escape_path(path)
}

fn failed(verb: &'static str, path: &Path, error: io::Error) -> DataError {
    DataError::Io(verb, shown(path), error)
}
