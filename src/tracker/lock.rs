//! Who may write a state file: one tracker that listens, for as long as it runs; or those of `--inetd`, in turn.
//!
//! The lock is on a file beside the state, since the state file itself is replaced as a whole. It is a flock(2), which
//! belongs to an open file description, and so to every process that inherits it: a listening tracker shares it with
//! the processes that write for it, and it is released when none of them can write any more. Such a tracker writes its
//! pid into the file, which is empty while a tracker of `--inetd` has it. Only the lock counts: what a killed tracker
//! left behind does no harm.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::unistd::Pid;

use crate::store::atomic;
use crate::text::{count, escape_path};

/// How long those of `--inetd` may have the lock, and how often is tried meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(5);
/// A tracker that has ended has the lock until all of its processes have ended, too.
const ENDING: Duration = Duration::from_secs(2);
/// The longest number of a process, and a newline.
const LONGEST: usize = 16;

/// The kinds of owners of a state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A tracker that listens, this process.
    Listening(Pid),
    /// One of `--inetd`, for one change.
    OneChange,
}

/// Locks the state file, until the last duplicate of the returned descriptor is closed.
///
/// Where the file system knows no locks, a tracker that listens has none.
///
/// # Errors
/// Where a tracker that listens has it, which the message names; and where there can be no file beside it.
pub fn take(state: &Path, claim: Claim) -> anyhow::Result<File> {
    let path = lock_path(state);
    let failed = || format!("cannot lock {}", escape_path(&path));
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .clone();
    let file = open(&path, options).with_context(failed)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => {
                sweep(state);
                break;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) if claim != Claim::OneChange && knows_none(&error) => {
                log::warn!(
                    "{}: {error}; nothing keeps other trackers from it",
                    failed()
                );
                break;
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        match number(&file).with_context(failed)? {
            Some(pid) if claim == Claim::OneChange || begun.elapsed() >= ENDING => {
                bail!(in_use(state, &pid))
            }
            None if begun.elapsed() >= PATIENCE => {
                bail!("{}: others have it for too long", failed())
            }
            _ => thread::sleep(AGAIN),
        }
    }
    write(&file, claim).with_context(failed)?;
    Ok(file)
}

/// What was left by those who were killed when they wrote the state: nobody else writes it now.
fn sweep(state: &Path) {
    match atomic::sweep(state) {
        Ok(0) => {}
        Ok(removed) => log::info!(
            "removed {} that a killed tracker left beside {}",
            count(removed, "temporary file"),
            escape_path(state)
        ),
        Err(error) => log::debug!(
            "cannot look for what is left beside {}: {error}",
            escape_path(state)
        ),
    }
}

/// Whether a tracker that listens has the state file: the message that says so.
///
/// # Errors
/// Where there is such a file beside it, and it cannot be read.
pub fn in_the_way(state: &Path) -> anyhow::Result<Option<String>> {
    let path = lock_path(state);
    let failed = || format!("cannot lock {}", escape_path(&path));
    let file = match open(&path, OpenOptions::new().read(true).clone()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.with_context(failed)?,
    };
    let Some(pid) = number(&file).with_context(failed)? else {
        return Ok(None);
    };
    // A shared lock, and only where there is a number: those in turn are not disturbed.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Ok(Some(in_use(state, &pid))),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(None),
    }
}

fn in_use(state: &Path, pid: &str) -> String {
    format!(
        "cannot use the state {}: it is used by another tracker (pid {pid}); stop that one, or name another file",
        escape_path(state)
    )
}

/// The file beside the state; what a link points at is the state, and replaced.
fn lock_path(state: &Path) -> PathBuf {
    let is_link = fs::symlink_metadata(state).is_ok_and(|metadata| metadata.is_symlink());
    let target = is_link.then(|| fs::canonicalize(state).ok()).flatten();
    let mut path = target.unwrap_or(state.into()).into_os_string();
    path.push(".lock");
    path.into()
}

/// Follows no link: whoever may write in the directory must not choose what is written.
fn open(path: &Path, mut options: OpenOptions) -> io::Result<File> {
    let file = options
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// The number of the tracker that listens, where one wrote it last.
fn number(file: &File) -> io::Result<Option<String>> {
    let mut text = [0; LONGEST];
    let length = file.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..length]);
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.strip_suffix('\n').filter(|text| is_number(text));
    Ok(number.filter(|text| !text.is_empty()).map(String::from))
}

fn write(mut file: &File, claim: Claim) -> io::Result<()> {
    if file.metadata()?.len() > 0 {
        file.set_len(0)?;
    }
    match claim {
        Claim::Listening(pid) => file.write_all(format!("{pid}\n").as_bytes()),
        Claim::OneChange => Ok(()),
    }
}

fn knows_none(error: &io::Error) -> bool {
    let errors = [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOSYS];
    error
        .raw_os_error()
        .is_some_and(|error| errors.contains(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_listens_has_it_alone_and_what_it_left_hinders_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = directory.path().join("state");
        assert_eq!(in_the_way(&state).expect("no file"), None);
        let held = take(&state, Claim::Listening(Pid::from_raw(123))).expect("nobody has it");
        let message = in_the_way(&state)
            .expect("a file")
            .expect("somebody has it");
        assert!(
            message.contains("used by another tracker (pid 123)"),
            "{message}"
        );
        for claim in [Claim::OneChange, Claim::Listening(Pid::from_raw(7))] {
            let refused = take(&state, claim).expect_err("it is in use").to_string();
            assert_eq!(refused, message);
        }
        drop(held);
        assert_eq!(in_the_way(&state).expect("a file"), None);
        take(&state, Claim::OneChange).expect("nobody has it");
        assert_eq!(
            fs::read(directory.path().join("state.lock")).expect("a file"),
            b""
        );
    }

    #[test]
    fn a_link_and_what_it_points_at_are_one_state() {
        let directory = tempfile::tempdir().expect("a directory");
        let (state, link) = (
            directory.path().join("state"),
            directory.path().join("link"),
        );
        fs::write(&state, "").expect("written");
        std::os::unix::fs::symlink("state", &link).expect("linked");
        let _held = take(&state, Claim::Listening(Pid::from_raw(123))).expect("nobody has it");
        assert!(in_the_way(&link).expect("a file").is_some());
    }

    #[test]
    fn a_link_in_the_place_of_the_lock_is_not_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = directory.path().join("state");
        fs::write(directory.path().join("other"), "other").expect("written");
        std::os::unix::fs::symlink("other", directory.path().join("state.lock")).expect("linked");
        take(&state, Claim::Listening(Pid::from_raw(123))).expect_err("a link");
        assert_eq!(
            fs::read(directory.path().join("other")).expect("a file"),
            b"other"
        );
    }
}
