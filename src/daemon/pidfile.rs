//! A file that names the process that has it, and that only one process can have.
//!
//! The file is locked for as long as its process lives, and it is the lock that counts: what a killed process left behind
//! hinders nobody. It appears whole, under a temporary name first: whoever finds it finds a number in it.
//!
//! At the end the process may have lost its rights to the directory ([`crate::confine`]), so that another one removes the
//! file, which was forked before and does nothing else.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::SigSet;

use crate::confine::{Confinement, Role};
use crate::store::atomic;
use crate::sys::fork;
use crate::text::{escape, escape_path};

/// How often is tried to get a file that others make and remove at the same time.
const ATTEMPTS: usize = 100;
/// The longest number of a process, and a newline.
const LONGEST: u64 = 16;
/// How long the removal may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A pidfile that this process has. Dropped, it is removed.
#[derive(Debug)]
pub struct Pidfile {
    /// Its lock is that of the descriptor, which no child keeps.
    _locked: File,
    remover: UnixStream,
}

/// Takes the file, where one is wanted.
///
/// # Errors
/// Where another process has it, which the message names; and where it cannot be written.
pub fn hold(path: Option<&Path>, confinement: &Confinement) -> anyhow::Result<Option<Pidfile>> {
    let Some(path) = path else { return Ok(None) };
    let name = escape_path(path);
    let path = absolute(path).with_context(|| format!("cannot use {name} as a pidfile"))?;
    match take(&path).with_context(|| format!("cannot write {name}"))? {
        Ok(locked) => {
            let remover = start_remover(&path, &locked, confinement)
                .with_context(|| format!("cannot start what removes {name}"))?;
            let _locked = locked;
            Ok(Some(Pidfile { _locked, remover }))
        }
        Err(holder) => bail!("cannot use {name} as a pidfile: {holder} has it, and still runs"),
    }
}

/// The file, locked, with the number of this process in it; or who has it.
fn take(path: &Path) -> io::Result<Result<File, String>> {
    for _ in 0..ATTEMPTS {
        let old = match open_to_lock(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(old) = &old {
            match old.try_lock() {
                Ok(()) if !is_at(old, path) => continue,
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Err(holder(old))),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        match put(path, old.is_some()) {
            // Somebody was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            put => return put.map(Ok),
        }
    }
    Err(io::Error::other("others make and remove it all the time"))
}

/// A symbolic link is followed by nobody: whoever may write in the directory must not choose what is overwritten.
fn open_to_lock(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// Whether the path still leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |of: fs::Metadata| (of.dev(), of.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(one), Ok(other)) => identity(one) == identity(other),
        _ => false,
    }
}

/// Who wrote its number there.
fn holder(mut file: &File) -> String {
    let mut text = Vec::new();
    let _ = (&mut file).take(LONGEST).read_to_end(&mut text);
    match escape(&text) {
        pid if !pid.is_empty() && pid.bytes().all(|digit| digit.is_ascii_digit()) => {
            format!("process {pid}")
        }
        _ => "another process".into(),
    }
}

/// Writes the file, locked, beside its name, and gives it its name.
fn put(path: &Path, replace: bool) -> io::Result<File> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    // Left by a process that had this number and was killed at this very moment.
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&temporary)?;
    let put = (|| {
        file.try_lock()?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        match replace {
            true => fs::rename(&temporary, path),
            false => atomic::rename_noreplace(&temporary, path),
        }
    })();
    if put.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    put.map(|()| file)
}

/// Starts the process that removes the file when it is asked to. It keeps the user that wrote the file, whoever this
/// process will become, and no other right.
fn start_remover(
    path: &Path,
    locked: &File,
    confinement: &Confinement,
) -> anyhow::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    // Not by its descriptor, which would be a second holder of the lock.
    let directory = atomic::directory_of(path);
    let (path, identity) = (PathBuf::from(path), locked.metadata()?);
    let keep = [theirs.as_fd()];
    fork::spawn_leaf(&keep, || {
        let _ = SigSet::all().thread_block();
        let role = Role::Outside {
            writes: Some(&directory),
        };
        confinement.confined(role, || {
            // The end without a word is that of a process that was killed: by now another may have the file.
            if matches!((&theirs).read(&mut [0]), Ok(1)) {
                let there = fs::symlink_metadata(&path);
                let same = |there: fs::Metadata| {
                    (there.dev(), there.ino()) == (identity.dev(), identity.ino())
                };
                if there.is_ok_and(same) {
                    let _ = fs::remove_file(&path);
                }
            }
            0
        })
    })?;
    Ok(ours)
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Where the process is gone, the file stays, and hinders nobody.
        let _ = self.remover.set_read_timeout(Some(PATIENCE));
        if self.remover.write_all(b"x").is_ok() {
            let _ = self.remover.read(&mut [0]);
        }
        let _ = self.remover.shutdown(Shutdown::Both);
    }
}
