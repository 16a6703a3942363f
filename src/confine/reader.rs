//! An unconfined helper that reads the operator's files on behalf of a process that may open none.
//!
//! It replies with the parsed result rather than the bytes, and it alone decides which files are read, as they may name
//! others. The reply is written to an anonymous memory file, so that a helper that is killed leaves no partial one.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{MsgFlags, send};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keeper::{ALONE, Helper};
use crate::sys::passing;
use crate::sys::poll::wait_readable;

/// Files that take longer to read are given up: they may lie on a machine that is down, and clients are waiting.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a question is asked: the helper may be killed, and replaced.
const ATTEMPTS: usize = 3;
/// The number under which the helper announces that it has started; replies have the number of their question.
const BEGUN: u64 = 0;

/// The confined end.
pub struct Reader<T> {
    socket: OwnedFd,
    /// The number of the last question.
    asked: AtomicU64,
    what: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Reader<T> {
    /// Makes the confined end, and the helper, which is yet to be started: it first runs `begin`, and then `read` for
    /// each question.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new<'a>(
        begin: impl Fn() -> anyhow::Result<()> + Send + 'a,
        read: impl Fn() -> anyhow::Result<T> + Send + 'a,
    ) -> io::Result<(Self, Helper<'a>)> {
        let (socket, theirs) = passing::pair()?;
        let helper = Helper {
            task: "reads the configuration".into(),
            socket: theirs,
            keep: Vec::new(),
            life: Box::new(move |socket| match begin() {
                Ok(()) => match serve(socket, &read) {
                    Ok(()) => ALONE,
                    Err(error) if is_closed(&error) => ALONE,
                    Err(_) => 1,
                },
                Err(error) => {
                    crate::logging::complain(&error);
                    1
                }
            }),
        };
        let reader = Self {
            socket,
            asked: AtomicU64::new(BEGUN),
            what: PhantomData,
        };
        Ok((reader, helper))
    }

    /// Has the files read now, and waits for the result.
    ///
    /// # Errors
    /// What went wrong with the files, and where the process is gone, or does not answer.
    pub fn read(&self) -> anyhow::Result<T> {
        let answer = self.ask().context("cannot read the configuration")?;
        let answer: Result<T, String> = serde_json::from_slice(&answer)?;
        answer.map_err(anyhow::Error::msg)
    }

    fn ask(&self) -> io::Result<Vec<u8>> {
        for _ in 0..ATTEMPTS {
            // What was said to questions that were given up, and by those that have begun since.
            while passing::receive(self.socket.as_fd())?.is_some() {}
            let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            // Not with sendmsg(2), which a confined process may not use.
            let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
            send(socket, &number.to_ne_bytes(), flags).map_err(|_| gone())?;
            if let Some(mut file) = self.answer(number)? {
                let mut answer = Vec::new();
                file.read_to_end(&mut answer)?;
                return Ok(answer);
            }
        }
        Err(io::Error::other("the process that does it ends each time"))
    }

    /// The reply to a question; `None` where the helper was restarted meanwhile.
    fn answer(&self, to: u64) -> io::Result<Option<File>> {
        loop {
            if !wait_readable(&[Some(self.socket.as_fd())], Some(TIMEOUT))?[0] {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut passed = passing::receive(self.socket.as_fd())?.ok_or_else(gone)?;
            match (number(&passed.bytes), passed.descriptors.pop()) {
                (Some(BEGUN), _) => return Ok(None),
                (Some(number), Some(file)) if number == to => return Ok(Some(file.into())),
                // To a question that was given up.
                _ => {}
            }
        }
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

fn gone() -> io::Error {
    io::Error::other("the process that does it has ended; start the program again")
}

/// Whether nobody is left who could ask: where something was unread when the other end was closed, that is a reset.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

/// The helper's main loop, until nobody is left to ask.
fn serve<T: Serialize>(socket: &OwnedFd, read: &impl Fn() -> anyhow::Result<T>) -> io::Result<()> {
    passing::send(socket.as_fd(), &BEGUN.to_ne_bytes(), &[])?;
    loop {
        wait_readable(&[Some(socket.as_fd())], None)?;
        let Some(asked) = passing::receive(socket.as_fd())? else {
            return Ok(());
        };
        let answer = read().map_err(|error| format!("{error:#}"));
        let mut file = File::from(memfd_create(c"answer", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&serde_json::to_vec(&answer)?)?;
        file.rewind()?;
        passing::send(socket.as_fd(), &asked.bytes, &[file.as_fd()])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_there_now_and_an_error_is_handed_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let file = path.clone();
        let read = move || std::fs::read_to_string(&file).context("cannot read it");
        let (reader, helper) = Reader::<String>::new(|| Ok(()), read).expect("a pair");
        let thread = std::thread::spawn(move || (helper.life)(&helper.socket));
        let long = "long".repeat(100_000);
        for text in ["one", "two", &long] {
            std::fs::write(&path, text).expect("a write");
            assert_eq!(reader.read().expect("it is there"), text);
        }
        std::fs::remove_file(&path).expect("it was there");
        let error = reader.read().expect_err("it is gone").to_string();
        assert!(error.starts_with("cannot read it: No such file"), "{error}");
        drop(reader);
        assert_eq!(thread.join().expect("no panic"), ALONE);
    }

    #[test]
    fn whoever_died_before_it_asked_is_not_waited_for() {
        let (reader, helper) = Reader::new(|| Ok(()), || Ok(String::new())).expect("a pair");
        let life = helper.life;
        let thread = std::thread::spawn(move || [life(&helper.socket), life(&helper.socket)]);
        // It has said that it has begun, which nobody will read.
        wait_readable(&[Some(reader.socket.as_fd())], None).expect("it says so");
        drop(reader);
        assert_eq!(thread.join().expect("no panic"), [ALONE; 2]);
    }
}
