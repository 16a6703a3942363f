//! A Unix socket by which its owner, and nobody else, asks a server that runs.
//!
//! The file has mode 0600 from the moment at which it exists. One that a dead server left behind is replaced; that of a
//! server which lives is an error.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::store::atomic::directory_of;
use crate::text::escape_path;

/// For its owner alone.
const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// How long another server may take to begin that has the same path, and one that was killed to end with all of its
/// children; and how often is looked whether it has.
const CHANGING: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(100);

/// The socket, and its file.
#[derive(Debug)]
pub struct ControlSocket {
    /// It accepts what a TCP socket would; its type is that of all listeners.
    pub listener: TcpListener,
    /// Its file.
    pub file: ControlFile,
}

/// The file of a control socket, to be removed at the end. It is found also by a process that has another root
/// directory by then.
#[derive(Debug)]
pub struct ControlFile {
    directory: OwnedFd,
    name: OsString,
    /// The file itself: another server may have replaced it, and while this is open no other gets its number.
    itself: OwnedFd,
}

impl ControlSocket {
    /// Listens at this path.
    ///
    /// # Errors
    /// Where that is not possible, a server listens there already, or there is something else.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let listening = || format!("cannot listen on {}", escape_path(path));
        let address = UnixAddr::new(path).map_err(|error| match error {
            Errno::ENAMETOOLONG => anyhow::anyhow!("the path of a socket has 107 bytes at most"),
            error => error.into(),
        });
        let address = address.with_context(listening)?;
        let name = path.file_name().context("it names no file");
        let name = name.with_context(listening)?;
        let end = Instant::now() + CHANGING;
        loop {
            match Self::try_open(path, &address, name).with_context(listening)? {
                Some(control) => return Ok(control),
                None if Instant::now() < end => sleep(AGAIN),
                None => {
                    return Err(anyhow::anyhow!("another process does")).with_context(listening);
                }
            }
        }
    }

    /// Listens, unless another process does.
    fn try_open(path: &Path, address: &UnixAddr, name: &OsStr) -> anyhow::Result<Option<Self>> {
        let directory = File::open(directory_of(path))?;
        // Two servers that begin at the same time would each take the other's socket for one that is left behind.
        let Some(locked) = lock(directory)? else {
            return Ok(None);
        };
        let Some(listener) = bind_at(address, &locked, name)? else {
            return Ok(None);
        };
        listen(&listener, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN))?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let itself = openat(&*locked, name, flags, Mode::empty())?;
        let directory = locked.unlock().map_err(|(_, error)| error)?;
        Ok(Some(Self {
            listener: TcpListener::from(listener),
            file: ControlFile {
                directory: directory.into(),
                name: name.to_owned(),
                itself,
            },
        }))
    }
}

impl ControlFile {
    /// Its directory.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// What a process needs that is to remove it.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.directory.as_fd(), self.itself.as_fd()]
    }

    /// Makes it this user's.
    ///
    /// # Errors
    /// As fchownat(2).
    pub fn give_to(&self, user: nix::unistd::Uid, group: nix::unistd::Gid) -> io::Result<()> {
        let (user, group) = (Some(user), Some(group));
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        Ok(nix::unistd::fchownat(
            &self.directory,
            self.name.as_os_str(),
            user,
            group,
            flags,
        )?)
    }

    /// Removes it, unless it is another's by now.
    ///
    /// # Errors
    /// As unlinkat(2).
    pub fn remove(&self) -> io::Result<()> {
        match look(&self.directory, &self.name) {
            Ok(status) if identity(&status) == identity(&fstat(&self.itself)?) => {
                let flags = UnlinkatFlags::NoRemoveDir;
                Ok(unlinkat(&self.directory, self.name.as_os_str(), flags)?)
            }
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Keeps others that begin from looking at the same time; nothing where one of them does already.
fn lock(directory: File) -> Result<Option<Flock<File>>, Errno> {
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => Ok(Some(locked)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error),
    }
}

/// A socket with this address, unless another process listens there.
fn bind_at(address: &UnixAddr, directory: &File, name: &OsStr) -> anyhow::Result<Option<OwnedFd>> {
    let bind = || -> Result<OwnedFd, Errno> {
        let fd = stream_socket()?;
        // The file gets the mode that the socket has: it never has another.
        fchmod(&fd, MODE)?;
        bind(fd.as_raw_fd(), address)?;
        Ok(fd)
    };
    match bind() {
        Err(Errno::EADDRINUSE) => {}
        bound => return Ok(Some(bound?)),
    }
    let is_socket = |status: &FileStat| {
        SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK
    };
    if !is_socket(&look(directory, name)?) {
        bail!("there is a file that is no socket");
    }
    match connect(stream_socket()?.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => {}
        Ok(()) | Err(Errno::EAGAIN) => return Ok(None),
        Err(error) => return Err(error).context("there is a socket that cannot be tried"),
    }
    unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)
        .context("a dead server's socket is there and cannot be removed")?;
    Ok(Some(bind()?))
}

/// A socket that does not block: a server that is busy shall not be waited for.
fn stream_socket() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

fn look(directory: impl AsFd, name: &OsStr) -> Result<FileStat, Errno> {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn identity(status: &FileStat) -> (u64, u64) {
    (status.st_dev, status.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    fn mode(path: &Path) -> u32 {
        let metadata = std::fs::metadata(path).expect("it is there");
        metadata.permissions().mode() & 0o777
    }

    #[test]
    fn its_file_is_for_its_owner_and_goes_at_the_end() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("control");
        let control = ControlSocket::open(&path).expect("a socket");
        assert_eq!(mode(&path), 0o600);
        UnixStream::connect(&path).expect("it listens");
        control.file.remove().expect("it is ours");
        assert!(!path.exists());
        control.file.remove().expect("nothing is left to do");
    }

    #[test]
    fn what_a_dead_server_left_is_replaced_and_a_live_one_is_left_alone() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("control");
        let first = ControlSocket::open(&path).expect("a socket");
        let error = ControlSocket::open(&path).expect_err("it is in use");
        assert!(
            format!("{error:#}").ends_with("control: another process does"),
            "{error:#}"
        );
        UnixStream::connect(&path).expect("it still listens");
        drop(first.listener);
        let second = ControlSocket::open(&path).expect("a socket");
        UnixStream::connect(&path).expect("it listens");
        first.file.remove().expect("nothing is ours any more");
        UnixStream::connect(&path).expect("it was left alone");
        drop(second);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("data");
        std::fs::write(&path, "precious").expect("a file");
        let error = ControlSocket::open(&path).expect_err("it is no socket");
        assert!(format!("{error:#}").contains("no socket"), "{error:#}");
        assert_eq!(std::fs::read(&path).ok(), Some(b"precious".to_vec()));
    }

    #[test]
    fn a_path_that_is_too_long_is_said_to_be_so() {
        let path = Path::new("/tmp").join("x".repeat(120));
        let error = ControlSocket::open(&path).expect_err("it is too long");
        assert!(format!("{error:#}").contains("107 bytes"), "{error:#}");
    }
}
