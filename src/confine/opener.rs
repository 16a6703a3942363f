//! A process outside of the confinement: forked before, it opens files that were named then, for a process that may open
//! none.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::signal::SigSet;
use nix::sys::socket::{MsgFlags, send};

use crate::sys::poll::wait_readable;
use crate::sys::{fork, passing};

/// The confined end.
#[derive(Debug)]
pub struct Opener {
    socket: OwnedFd,
    paths: Vec<PathBuf>,
}

impl Opener {
    /// Starts the process, which runs `begin` first, and opens these files in this way. It ends with its parent.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(
        paths: Vec<PathBuf>,
        begin: impl FnOnce() -> anyhow::Result<()>,
        open: fn(&Path) -> io::Result<File>,
    ) -> io::Result<Self> {
        let (ours, theirs) = passing::pair()?;
        fork::spawn_leaf(&[theirs.as_fd()], || {
            let _ = SigSet::all().thread_block();
            match begin() {
                Ok(()) => serve(&theirs, &paths, open).is_err().into(),
                Err(error) => {
                    crate::logging::complain(&error);
                    1
                }
            }
        })?;
        Ok(Self {
            socket: ours,
            paths,
        })
    }

    /// Opens one of the files.
    ///
    /// # Errors
    /// As open(2), and where the process is gone.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let gone = || io::Error::other("the process that opens files has ended");
        let number = self.paths.iter().position(|named| named == path);
        let number = number.ok_or(io::ErrorKind::PermissionDenied)? as u64;
        // Not with sendmsg(2), which a confined process may not use.
        let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
        send(socket, &number.to_ne_bytes(), flags).map_err(|_| gone())?;
        wait_readable(&[Some(self.socket.as_fd())], None)?;
        let mut passed = passing::receive(self.socket.as_fd())?.ok_or_else(gone)?;
        let errno = passed.bytes.as_slice().try_into().map_err(|_| gone())?;
        match (i32::from_ne_bytes(errno), passed.descriptors.pop()) {
            (0, Some(file)) => Ok(file.into()),
            (errno, _) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// The life of the process.
fn serve(
    socket: &OwnedFd,
    paths: &[PathBuf],
    open: fn(&Path) -> io::Result<File>,
) -> io::Result<()> {
    loop {
        wait_readable(&[Some(socket.as_fd())], None)?;
        let Some(asked) = passing::receive(socket.as_fd())? else {
            return Ok(());
        };
        let number = <[u8; 8]>::try_from(asked.bytes.as_slice()).map(u64::from_ne_bytes);
        let path = number
            .ok()
            .and_then(|number| paths.get(usize::try_from(number).ok()?));
        let opened = path
            .ok_or(io::ErrorKind::NotFound.into())
            .and_then(|path| open(path));
        match opened {
            Ok(file) => passing::send(socket.as_fd(), &0i32.to_ne_bytes(), &[file.as_fd()])?,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                passing::send(socket.as_fd(), &errno.to_ne_bytes(), &[])?;
            }
        }
    }
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
        let (socket, theirs) = passing::pair().expect("a pair");
        let named = paths.clone();
        let thread = std::thread::spawn(move || serve(&theirs, &named, |path| File::open(path)));
        let opener = Opener { socket, paths };
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
        thread.join().expect("no panic").expect("an end");
    }
}
