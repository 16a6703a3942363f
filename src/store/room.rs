//! Room for a file that will be written.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::geteuid;
use thiserror::Error;

use crate::sys::support::is_unsupported;
use crate::text;

/// Why there is no room.
#[derive(Debug, Error)]
pub enum RoomError {
    /// The file does not fit.
    #[error(
        "{} more are needed, and {} are free there; make room, or download it elsewhere (-d or -o)",
        text::size(*needed),
        text::size(*free)
    )]
    TooSmall {
        /// Bytes that the file needs beside those that it has.
        needed: u64,
        /// Bytes that are free in its file system.
        free: u64,
    },
    /// The system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reserves the disk space of a file of this length, which may have some of it, and makes it that long.
///
/// Some file systems cannot; there the file is only made longer. In a file system in memory, to reserve room is to write
/// all of it, a third of a second for a GiB, and what holds the room must be written again: there too the file is only
/// made longer. In either case only if there is room for it now.
///
/// # Errors
/// Where there is no room; what was taken before that was known is given back.
pub fn reserve(file: &File, length: u64) -> Result<(), RoomError> {
    let bytes = i64::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let before = file.metadata()?;
    let needed = length.saturating_sub(before.blocks().saturating_mul(512));
    let space = Space::of(file);
    if let Some(free) = space.free.filter(|free| *free < needed) {
        return Err(RoomError::TooSmall { needed, free });
    }
    if space.in_memory {
        return Ok(grow(file, length)?);
    }
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(error) if is_unsupported(error) => Ok(grow(file, length)?),
        Err(error) => {
            // It may have taken a part, and made the file longer.
            let _ = file.set_len(before.len());
            match (error, Space::of(file).free) {
                (nix::errno::Errno::ENOSPC, Some(free)) => {
                    Err(RoomError::TooSmall { needed, free })
                }
                _ => Err(io::Error::from(error).into()),
            }
        }
    }
}

/// What is known of the room in a file system.
struct Space {
    /// Bytes that this user may take; nothing where that is not known, or has no bound.
    free: Option<u64>,
    in_memory: bool,
}

impl Space {
    /// That of the file's file system.
    fn of(file: &File) -> Self {
        let Ok(system) = fstatfs(file) else {
            return Self {
                free: None,
                in_memory: false,
            };
        };
        let blocks = match geteuid().is_root() {
            true => system.blocks_free(),
            false => system.blocks_available(),
        };
        let block = u64::try_from(system.block_size()).unwrap_or_default();
        Self {
            // One that has no limit, or does not know it, says that it has no blocks.
            free: (system.blocks() > 0).then(|| blocks.saturating_mul(block)),
            in_memory: system.filesystem_type() == TMPFS_MAGIC,
        }
    }
}

fn grow(file: &File, length: u64) -> io::Result<()> {
    if file.metadata()?.len() < length {
        file.set_len(length)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    fn check(directory: &Path) {
        let file = tempfile::tempfile_in(directory).expect("a file");
        file.write_all_at(b"kept", 0).expect("written");
        for length in [3, 10_000, 5000] {
            reserve(&file, length).expect("room");
        }
        assert_eq!(file.metadata().expect("an open file").len(), 10_000);
        let mut start = [0; 4];
        file.read_exact_at(&mut start, 0).expect("readable");
        assert_eq!(&start, b"kept");
        for length in [1 << 60, u64::MAX] {
            assert!(reserve(&file, length).is_err(), "there is no such room");
        }
        let after = file.metadata().expect("an open file");
        assert_eq!(after.len(), 10_000);
        assert!(after.blocks() < 1000, "nothing was taken");
    }

    #[test]
    fn a_file_gets_room_on_disk_and_in_memory_and_nothing_where_there_is_none() {
        check(&std::env::temp_dir());
        let memory = Path::new("/dev/shm");
        if memory.is_dir() {
            check(memory);
        }
    }
}
