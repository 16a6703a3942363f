//! Files read piece by piece, and hashed: what creating and verifying share.

use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::thread;

use sha2::{Digest, Sha256};

use crate::hash::FileHash;

/// Bytes that are read and hashed at a time: little enough to be still in the core's own cache when they are hashed.
pub const PIECE: usize = 128 << 10;

/// Called by every thread after each piece, with the bytes that it has just done: shows progress, and breaks off the
/// work where it answers [`ControlFlow::Break`].
pub type Observer<'a> = &'a (dyn Fn(u64) -> ControlFlow<()> + Sync);

/// An observer that looks on.
pub fn unobserved(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// What a run ends with that its observer broke off.
fn broken_off() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "broken off")
}

/// Does `work` on so many threads at once, this one among them; fewer where the system grants no more.
///
/// # Errors
/// One of those that the threads ended with.
pub(super) fn on_threads(
    threads: usize,
    work: impl Fn() -> io::Result<()> + Sync,
) -> io::Result<()> {
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, &work).ok())
            .collect();
        let mine = work();
        others
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(panicked())))
            .fold(mine, Result::and)
    })
}

/// Feeds these bytes of the file to a hash, in pieces of at most `buffer`.
///
/// # Errors
/// As pread(2); [`io::ErrorKind::UnexpectedEof`] where the file ends before the range does;
/// [`io::ErrorKind::Interrupted`] where the observer broke it off.
pub fn hash_range(
    data: &File,
    range: Range<u64>,
    hasher: &mut Sha256,
    buffer: &mut [u8],
    observer: Observer<'_>,
) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let wanted = (range.end - at).min(buffer.len() as u64) as usize;
        let piece = &mut buffer[..wanted];
        if read_full_at(data, piece, at)? < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&*piece);
        at += wanted as u64;
        observed(observer, wanted)?;
    }
    Ok(())
}

/// Hashes the first `length` bytes of the file.
///
/// # Errors
/// As [`hash_range`].
pub fn hash_file(data: &File, length: u64, observer: Observer<'_>) -> io::Result<FileHash> {
    let mut hasher = Sha256::new();
    hash_range(data, 0..length, &mut hasher, &mut vec![0; PIECE], observer)?;
    Ok(FileHash::finish(hasher))
}

/// Fills the buffer from `offset` on; answers how much the file had.
///
/// # Errors
/// As pread(2).
pub fn read_full_at(data: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match data.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Tells the observer of a piece; an error where it has seen enough.
pub(super) fn observed(observer: Observer<'_>, bytes: usize) -> io::Result<()> {
    match observer(bytes as u64) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(broken_off()),
    }
}

/// What a run ends with where a thread of its did: a defect of this program.
pub(super) fn panicked() -> io::Error {
    io::Error::other("a hashing thread panicked")
}
