//! The processes of the comparison: this program, executed again.
//!
//! A part is executed, not forked: a server of threads must not fork, and a load generator must not share its
//! parent's memory. It asks to die with its parent before it does anything else, and then becomes what it is for.
//! A part that is not a server takes orders as lines of JSON on standard input, and answers on standard output.

use std::ffi::OsStr;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::poll::wait_readable;
use crate::sys::signals::Signals;

/// This program, whatever became of its file.
const SELF: &str = "/proc/self/exe";
/// The hidden command that a part is.
const COMMAND: &str = "compare-part";
/// The longest line that is read from a part, in bytes.
const LONGEST_LINE: usize = 8 << 20;

/// A signal to stop, which every wait heeds.
#[derive(Debug)]
pub struct Stop {
    signals: Signals,
    got: std::cell::Cell<Option<Signal>>,
}

impl Stop {
    /// Catches INT and TERM from now on.
    ///
    /// # Errors
    /// Where the handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            signals: Signals::new(&[Signal::SIGINT, Signal::SIGTERM])?,
            got: std::cell::Cell::new(None),
        })
    }

    /// The signal that came, if one did.
    pub fn signal(&self) -> Option<Signal> {
        if self.got.get().is_none() {
            self.signals.clear();
            self.got
                .set(self.signals.take_any(&[Signal::SIGINT, Signal::SIGTERM]));
        }
        self.got.get()
    }

    /// # Errors
    /// Where a signal came: the comparison is over.
    pub fn check(&self) -> io::Result<()> {
        match self.signal() {
            None => Ok(()),
            Some(signal) => Err(io::Error::other(format!("stopped by {signal}"))),
        }
    }
}

/// What becomes of a part's standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaints {
    /// The user sees it.
    Shown,
    /// It is kept, and cited where the part ends unexpectedly: servers have things to say that are of no interest
    /// here.
    Kept,
}

/// A process of the comparison; killed and reaped when it is dropped.
#[derive(Debug)]
pub struct Part {
    what: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// What was read of it and not yet taken.
    heard: Vec<u8>,
}

impl Part {
    /// Starts the part `role` with these arguments.
    ///
    /// # Errors
    /// Where the process cannot be made.
    pub fn start<A: AsRef<OsStr>>(
        role: &str,
        arguments: &[A],
        complaints: Complaints,
    ) -> io::Result<Self> {
        let mut child = Command::new(SELF)
            .arg0("cascade")
            .args([COMMAND, &std::process::id().to_string(), role])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(match complaints {
                Complaints::Shown => Stdio::inherit(),
                Complaints::Kept => Stdio::piped(),
            })
            .spawn()
            .map_err(|error| cannot("start", role, &error))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        Ok(Self {
            what: role.into(),
            stdin,
            stdout: stdout.ok_or(io::ErrorKind::BrokenPipe)?,
            child,
            heard: Vec::new(),
        })
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(-1))
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    /// As waitpid(2).
    pub fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Sends an order.
    ///
    /// # Errors
    /// Where the part is gone.
    pub fn order<T: Serialize>(&mut self, order: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.stdin
            .as_mut()
            .ok_or(io::ErrorKind::BrokenPipe)?
            .write_all(&line)
            .map_err(|error| cannot("talk to", &self.what, &error))
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// Where none comes in time, the part ends, or a signal stops the comparison.
    pub fn answer<T: DeserializeOwned>(&mut self, stop: &Stop, limit: Duration) -> io::Result<T> {
        let line = self.line(stop, limit)?;
        serde_json::from_str(&line).map_err(|error| cannot("understand", &self.what, &error.into()))
    }

    /// Waits for a line of its output.
    ///
    /// # Errors
    /// As [`Part::answer`].
    pub fn line(&mut self, stop: &Stop, limit: Duration) -> io::Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            stop.check()?;
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.heard.len() > LONGEST_LINE {
                return Err(cannot("hear", &self.what, &io::ErrorKind::TimedOut.into()));
            }
            let ready = wait_readable(
                &[Some(stop.signals.as_fd()), Some(self.stdout.as_fd())],
                Some(left),
            )?;
            if ready[1] {
                let mut bytes = [0; 65536];
                match self.stdout.read(&mut bytes)? {
                    0 => return Err(self.ended()),
                    n => self.heard.extend_from_slice(&bytes[..n]),
                }
            }
        }
    }
}

impl Part {
    /// The error of a part that ended while it was needed, with its own last words.
    fn ended(&mut self) -> io::Error {
        let _ = self.child.kill();
        let mut words = [0; 4096];
        let read = self
            .child
            .stderr
            .as_mut()
            .map(|stderr| stderr.read(&mut words));
        let words = match read {
            Some(Ok(n)) => String::from_utf8_lossy(&words[..n]).into_owned(),
            _ => String::new(),
        };
        let reason = match words.lines().last() {
            Some(last) => format!("it ended: {last}"),
            None => "it ended".into(),
        };
        cannot("hear", &self.what, &io::Error::other(reason))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Its children die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cannot(verb: &str, what: &str, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot {verb} the part '{what}': {error}"),
    )
}

/// In a part: dies with its parent, `parent`.
///
/// # Errors
/// Where the parent is gone already, or prctl(2) fails.
pub fn die_with(parent: i32) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == Pid::from_raw(parent) {
        Ok(())
    } else {
        Err(io::Error::other(
            "this is a part of 'cascade compare', which starts it",
        ))
    }
}

/// In a part: becomes the program with these arguments. The death signal outlives the exec.
pub fn become_command<A: AsRef<OsStr>>(arguments: &[A]) -> io::Error {
    Command::new(SELF).arg0("cascade").args(arguments).exec()
}

/// In a part: the next order; none where the comparison is over.
///
/// # Errors
/// Where it is none.
pub fn take_order<T: DeserializeOwned>() -> io::Result<Option<T>> {
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line)?)),
    }
}

/// In a part: answers.
///
/// # Errors
/// Where nobody listens.
pub fn give_answer<T: Serialize>(answer: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}
