//! Batching: small responses that are pending together are sent together.
//!
//! A range of a file is usually best sent with sendfile(2), which copies nothing; but for ranges of a few kilobytes the
//! system calls cost more than the copy. A client that pipelines requests for small blocks gets many of them with one
//! pread(2), where the blocks are adjacent in the file, and one send(2). (sendmsg(2) would save a copy; but it can
//! forge the sender's identity, so confined processes may not call it.)

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send as send_bytes};

use crate::service::{Chunk, Output};

/// More output follows: nix has no name for it.
pub(super) const MSG_MORE: MsgFlags = MsgFlags::from_bits_retain(libc::MSG_MORE);
/// Ranges up to this size are copied.
const SMALL: u64 = 16 << 10;
/// The most that is sent at once, in bytes and in chunks.
const TOGETHER: u64 = 128 << 10;
const PARTS: usize = 256;

/// Sends what is worth it of the beginning of the output, which takes note; answers how much that was. Sends nothing
/// where there is nothing of that kind, or a file has become too short.
///
/// # Errors
/// As send(2) and pread(2).
#[inline(never)]
pub fn send(socket: &impl AsFd, output: &mut Output) -> Result<Option<usize>, Errno> {
    let count = output.chunks().scan(0, fits).take(PARTS).count();
    // A header and a block are as well sent one after the other.
    if count < 4 {
        return Ok(None);
    }
    let Some(memory) = read(output, count).map_err(|error| errno(&error))? else {
        return Ok(None);
    };
    let mut rest = memory.as_slice();
    let mut together = Vec::with_capacity(TOGETHER as usize);
    for chunk in output.chunks().take(count) {
        match chunk {
            Chunk::Bytes { bytes, sent } => together.extend_from_slice(&bytes[*sent..]),
            Chunk::File { range, .. } => {
                let (part, others) = rest.split_at((range.end - range.start) as usize);
                rest = others;
                together.extend_from_slice(part);
            }
        }
    }
    let more = if output.chunks().nth(count).is_some() {
        MSG_MORE
    } else {
        MsgFlags::empty()
    };
    let flags = more | MsgFlags::MSG_NOSIGNAL;
    let sent = send_bytes(socket.as_fd().as_raw_fd(), &together, flags)?;
    output.sent_of_all(sent);
    Ok(Some(sent))
}

/// Whether a chunk is small enough to be batched; adds its bytes.
fn fits(total: &mut u64, chunk: &Chunk) -> Option<()> {
    *total += chunk.length();
    (chunk.length() <= SMALL && *total <= TOGETHER).then_some(())
}

/// Reads the files' parts of the first `count` chunks, one after the other; nothing where a file is too short.
fn read(output: &Output, count: usize) -> io::Result<Option<Vec<u8>>> {
    let mut runs: Vec<(&Arc<File>, Range<u64>)> = Vec::new();
    for chunk in output.chunks().take(count) {
        let Chunk::File { file, range } = chunk else {
            continue;
        };
        match runs.last_mut() {
            Some((last, run)) if Arc::ptr_eq(last, file) && run.end == range.start => {
                run.end = range.end;
            }
            _ => runs.push((file, range.clone())),
        }
    }
    let length: u64 = runs.iter().map(|(_, run)| run.end - run.start).sum();
    let mut memory = vec![0; length as usize];
    let mut rest = memory.as_mut_slice();
    for (file, run) in runs {
        let (part, others) = rest.split_at_mut((run.end - run.start) as usize);
        match file.read_exact_at(part, run.start) {
            Ok(()) => rest = others,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(memory))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
