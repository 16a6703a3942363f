//! The data file on disk: which of its blocks are present, how they are verified, read and written.

pub mod atomic;
pub mod bitmap;
pub mod copy;
pub mod create;
pub mod data_file;
pub mod names;
pub mod origin;
pub mod pieces;
pub mod room;
pub mod stamp;
pub mod verify;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file for reading, without waiting for the other end of a pipe.
///
/// # Errors
/// As open(2), and for everything but a regular file.
pub fn open_data(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(is_a_directory());
    }
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok(file)
}

/// What is said of a directory where a file is needed.
pub fn is_a_directory() -> io::Error {
    io::Error::new(
        io::ErrorKind::IsADirectory,
        "it is a directory; name the files in it, or pack it into one (tar -cf)",
    )
}
