//! A process outside of the confinement: forked before, it opens files that were named then, for a process that may open
//! none.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send};

use super::keeper::{ALONE, Helper};
use crate::sys::passing;
use crate::sys::poll::wait_readable;

/// A file that takes longer to be opened is not waited for: it may lie on a machine that is down, and clients wait, too.
const TIMEOUT: Duration = Duration::from_secs(5);
/// So often a file is asked for: who opens it may be killed, and another begins.
const ATTEMPTS: usize = 3;
/// What the process says when it begins goes by this number; what it answers by the number of the question.
const BEGUN: u64 = 0;

/// The confined end.
#[derive(Debug)]
pub struct Opener {
    socket: OwnedFd,
    paths: Vec<PathBuf>,
    /// The number of the last question.
    asked: AtomicU64,
}

impl Opener {
    /// The confined end, and the process, which is yet to be started: it runs `begin` first, and opens these files in
    /// this way.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new<'a>(
        paths: Vec<PathBuf>,
        begin: impl Fn() -> anyhow::Result<()> + Send + 'a,
        open: fn(&Path) -> io::Result<File>,
    ) -> io::Result<(Self, Helper<'a>)> {
        let (socket, theirs) = passing::pair()?;
        let named = paths.clone();
        let helper = Helper {
            task: "opens files".into(),
            socket: theirs,
            life: Box::new(move |socket| match begin() {
                Ok(()) => serve(socket, &named, open).map_or(1, |()| ALONE),
                Err(error) => {
                    crate::logging::complain(&error);
                    1
                }
            }),
        };
        let asked = AtomicU64::new(BEGUN);
        let opener = Self {
            socket,
            paths,
            asked,
        };
        Ok((opener, helper))
    }

    /// Opens one of the files.
    ///
    /// # Errors
    /// As open(2), and where the process is gone, or does not answer.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let index = self.paths.iter().position(|named| named == path);
        let index = index.ok_or(io::ErrorKind::PermissionDenied)? as u64;
        for _ in 0..ATTEMPTS {
            // What was said to questions that were given up, and by those that have begun since.
            while passing::receive(self.socket.as_fd())?.is_some() {}
            let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            self.ask(number, index)?;
            if let Some(opened) = self.answer(number)? {
                return opened;
            }
        }
        Err(io::Error::other("the process that opens it ends each time"))
    }

    fn ask(&self, number: u64, index: u64) -> io::Result<()> {
        let question = [number.to_ne_bytes(), index.to_ne_bytes()].concat();
        // Not with sendmsg(2), which a confined process may not use.
        let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
        send(socket, &question, flags).map_err(|_| gone())?;
        Ok(())
    }

    /// The answer to a question; nothing where the process has begun anew meanwhile.
    fn answer(&self, to: u64) -> io::Result<Option<io::Result<File>>> {
        loop {
            if !wait_readable(&[Some(self.socket.as_fd())], Some(TIMEOUT))?[0] {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut passed = passing::receive(self.socket.as_fd())?.ok_or_else(gone)?;
            let answer = passed.bytes.split_first_chunk();
            let (number, errno) = answer.ok_or(io::ErrorKind::InvalidData)?;
            let errno = <[u8; 4]>::try_from(errno).map_err(io::Error::other)?;
            let file = passed.descriptors.pop().map(File::from);
            match (u64::from_ne_bytes(*number), i32::from_ne_bytes(errno), file) {
                (BEGUN, ..) => return Ok(None),
                (number, 0, Some(file)) if number == to => return Ok(Some(Ok(file))),
                (number, errno, _) if number == to => {
                    return Ok(Some(Err(io::Error::from_raw_os_error(errno))));
                }
                // To a question that was given up.
                _ => {}
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the process that opens files has ended; start the program again")
}

/// The life of the process.
fn serve(
    socket: &OwnedFd,
    paths: &[PathBuf],
    open: fn(&Path) -> io::Result<File>,
) -> io::Result<()> {
    let answer = |number: u64, errno: i32, file: &[BorrowedFd<'_>]| {
        let bytes = [&number.to_ne_bytes()[..], &errno.to_ne_bytes()].concat();
        passing::send(socket.as_fd(), &bytes, file)
    };
    answer(BEGUN, 0, &[])?;
    loop {
        wait_readable(&[Some(socket.as_fd())], None)?;
        let Some(asked) = passing::receive(socket.as_fd())? else {
            return Ok(());
        };
        let Some((number, index)) = question(&asked.bytes) else {
            continue;
        };
        let path = usize::try_from(index)
            .ok()
            .and_then(|index| paths.get(index));
        let opened = path
            .ok_or(io::ErrorKind::NotFound.into())
            .and_then(|path| open(path));
        match opened {
            Ok(file) => answer(number, 0, &[file.as_fd()])?,
            Err(error) => answer(number, error.raw_os_error().unwrap_or(libc::EINVAL), &[])?,
        }
    }
}

/// The number of a question, and which file it wants.
fn question(bytes: &[u8]) -> Option<(u64, u64)> {
    let (number, index) = bytes.split_first_chunk()?;
    let index = index.try_into().ok()?;
    Some((u64::from_ne_bytes(*number), u64::from_ne_bytes(index)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_was_named_is_opened_as_it_is_now_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = ["there", "gone"]
            .map(|name| directory.path().join(name))
            .to_vec();
        let open = |path: &Path| File::open(path);
        let (opener, helper) = Opener::new(paths, || Ok(()), open).expect("a pair");
        let thread = std::thread::spawn(move || (helper.life)(&helper.socket));
        for text in ["one", "two"] {
            std::fs::write(&opener.paths[0], text).expect("a write");
            let mut read = String::new();
            let mut file = opener.open(&opener.paths[0]).expect("it is there");
            file.read_to_string(&mut read).expect("text");
            assert_eq!(read, text);
            assert!(file.write_all(b"x").is_err(), "it is only to be read");
        }
        let error = |path: &Path| opener.open(path).expect_err("it cannot be opened").kind();
        assert_eq!(error(&opener.paths[1]), io::ErrorKind::NotFound);
        assert_eq!(
            error(Path::new("/etc/passwd")),
            io::ErrorKind::PermissionDenied
        );
        drop(opener);
        assert_eq!(thread.join().expect("no panic"), ALONE);
    }
}
