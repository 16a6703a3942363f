//! The end of a download: the file gets its name; or nothing came of it.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

use super::open::same_file;
use super::{Agreement, DataError, DataFile, Mode, Part, failed, shown};
use crate::store::atomic;
use crate::text::count;

impl DataFile {
    /// All of it is verified: cuts what is too much, and gives it its name once it is safe on the disk.
    ///
    /// # Errors
    /// Where that fails; everything that was verified is kept.
    pub fn finish(&self, length: u64) -> Result<(), DataError> {
        let fail = |verb| move |error| failed(verb, &self.path, error);
        let Some(file) = self.writing() else {
            return Ok(());
        };
        let part = self.part();
        let named = part.map_or(&self.path, |part| &part.path);
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
        let Some(part) = part else { return Ok(()) };
        self.rename(part).map_err(|error| {
            let why = format!("{error}; all of it is in {}", shown(&part.path));
            fail("give its name to")(io::Error::new(error.kind(), why))
        })?;
        atomic::sync_directory(&atomic::directory_of(&self.path)).map_err(fail("write"))
    }

    /// Gives a part its name: a new one, or that of the file that the user lets it replace.
    fn rename(&self, part: &Part) -> io::Result<()> {
        let Some(replaced) = &part.replaces else {
            return atomic::rename_noreplace(&part.path, &self.path);
        };
        match fs::symlink_metadata(&self.path) {
            Ok(there) if state(&there) == replaced.state => fs::rename(&part.path, &self.path),
            Ok(_) => Err(io::Error::other(
                "what was to be replaced was changed meanwhile",
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                atomic::rename_noreplace(&part.path, &self.path)
            }
            Err(error) => Err(error),
        }
    }

    /// Where the data grow, unless that is under their final name.
    fn part(&self) -> Option<&Part> {
        match &self.mode {
            Mode::Part(part) => Some(part),
            Mode::Named | Mode::InPlace(_) | Mode::OldPart(_) => None,
        }
    }

    /// Removes a part that this process created and to which nothing was written.
    pub fn discard(&self) {
        if let Some(part) = self.part()
            && part.created
            && same_file(&part.file, &part.path).unwrap_or(false)
        {
            // If it cannot be removed, it is in nobody's way: the next download begins with it.
            let _ = fs::remove_file(&part.path);
        }
    }
}

/// Which file it is, its length, and when it was changed last.
pub(super) fn state(metadata: &Metadata) -> (u64, u64, u64, i64, i64) {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    )
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { right, blocks, .. } = self;
        let bytes = |number| count(number as usize, "byte");
        let some = format!("{right} of {} agree", count(*blocks as usize, "block"));
        match self.excess {
            0 => f.write_str(&some),
            excess if right == blocks => write!(f, "it is {} too long", bytes(excess)),
            excess => write!(f, "{some}, and it is {} too long", bytes(excess)),
        }
    }
}
