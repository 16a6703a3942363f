//! Room for a file that will be written.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

/// Reserves the disk space of a file of this length, which may have some of it, and makes it that long.
///
/// Some file systems cannot; there the file is only made longer. In a file system in memory, to reserve room is to write
/// all of it, a third of a second for a GiB, and what holds the room must be written again: there too the file is only
/// made longer, if there is room for it now.
///
/// # Errors
/// Where there is no room, or as fallocate(2) and ftruncate(2).
pub fn reserve(file: &File, length: u64) -> io::Result<()> {
    let bytes = i64::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    if let Some(free) = free_memory(file) {
        let lacks = length.saturating_sub(file.metadata()?.blocks() * 512);
        if lacks > free {
            return Err(Errno::ENOSPC.into());
        }
        return grow(file, length);
    }
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => grow(file, length),
        result => Ok(result?),
    }
}

/// How many bytes are free in the file's file system, where that one lies in memory.
fn free_memory(file: &File) -> Option<u64> {
    let system = fstatfs(file).ok()?;
    if system.filesystem_type() != TMPFS_MAGIC {
        return None;
    }
    // One that has no limit says that it has no blocks.
    if system.blocks() == 0 {
        return Some(u64::MAX);
    }
    let block = u64::try_from(system.block_size()).ok()?;
    Some(system.blocks_available().saturating_mul(block))
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
        assert_eq!(file.metadata().expect("an open file").len(), 10_000);
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
