//! The program while it runs, and what it said when it ended. Its output goes to files: no pipe can fill up, and
//! none is kept open by a child that should have died.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{eventually, holds_within};

/// No run of the program takes longer; one that does is killed and fails its test.
const LONGEST: Duration = Duration::from_secs(60);

/// A process that was started; killed where the test forgets it.
pub struct Process {
    child: Child,
    what: String,
    stdout: PathBuf,
    stderr: PathBuf,
    started: Instant,
    reaped: bool,
}

impl Process {
    /// Starts `command`, whose output goes to the two files.
    pub fn start(mut command: Command, stdout: PathBuf, stderr: PathBuf) -> Self {
        let file = |path: &PathBuf| {
            std::fs::File::create(path).expect("a file for the output can be created")
        };
        command.stdin(Stdio::null());
        command.stdout(file(&stdout));
        command.stderr(file(&stderr));
        Self::start_as_is(command, stdout, stderr)
    }

    /// Starts `command` with its standard streams as they were set.
    pub fn start_as_is(mut command: Command, stdout: PathBuf, stderr: PathBuf) -> Self {
        let words: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        let what = words.join(" ");
        let started = Instant::now();
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        Self {
            child,
            what,
            stdout,
            stderr,
            started,
            reaped: false,
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// What it printed so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it said so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    pub fn signal(&self, signal: Signal) {
        // Not reaped yet, so the pid is still its own.
        kill(self.pid(), signal).expect("a child that was not reaped takes signals");
    }

    /// The status, where it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("a child can be waited for");
        self.reaped |= status.is_some();
        status
    }

    /// Waits for the end.
    #[track_caller]
    pub fn finish(self) -> Finished {
        self.finish_within(LONGEST)
    }

    /// Waits for the end; kills what takes longer, and fails with what it said.
    #[track_caller]
    pub fn finish_within(mut self, limit: Duration) -> Finished {
        let mut status = None;
        holds_within(limit, || {
            status = self.ended();
            status.is_some()
        });
        let took = self.started.elapsed();
        let Some(status) = status else {
            self.end();
            panic!(
                "'{}' did not end within {limit:?}\n{}",
                self.what,
                self.said()
            );
        };
        Finished {
            status,
            what: self.what.clone(),
            stdout: self.stdout(),
            stderr: self.stderr(),
            took,
        }
    }

    fn said(&self) -> String {
        format!("stdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr())
    }

    fn end(&mut self) {
        if !self.reaped {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.reaped = true;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn read(path: &PathBuf) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// A process that ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub what: String,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Finished {
    /// Checks the exit status.
    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self.assert_no_panic();
        self
    }

    /// Checks that it died of this signal.
    #[track_caller]
    pub fn assert_signal(self, signal: Signal) -> Self {
        assert_eq!(self.status.signal(), Some(signal as i32), "{self:#?}");
        self.assert_no_panic();
        self
    }

    /// Checks that it took no longer than this.
    #[track_caller]
    pub fn assert_within(self, limit: Duration) -> Self {
        assert!(self.took <= limit, "not within {limit:?}: {self:#?}");
        self
    }

    #[track_caller]
    fn assert_no_panic(&self) {
        for trace in ["panicked", "RUST_BACKTRACE"] {
            assert!(!self.stderr.contains(trace), "a panic: {self:#?}");
        }
    }

    /// The one line that an error is: it says what could not be done; a wrong command line may say so otherwise.
    #[track_caller]
    pub fn error(&self) -> &str {
        let begins = match self.status.code() {
            Some(2) => "cascade: ",
            _ => "cascade: cannot ",
        };
        let errors: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with(begins))
            .collect();
        assert_eq!(errors.len(), 1, "an error is one line: {self:#?}");
        errors[0]
    }

    /// Checks that nothing is said to have failed.
    #[track_caller]
    pub fn assert_no_error(&self) {
        let complains = self.stderr.contains("cascade: cannot ");
        assert!(!complains, "nothing failed: {self:#?}");
    }

    /// The lines of results on standard output; where it listened is none.
    pub fn results(&self) -> Vec<&str> {
        self.stdout
            .lines()
            .filter(|line| !line.starts_with("listening on "))
            .collect()
    }
}

/// A process that listens; asked to stop, and then killed, where the test forgets it.
pub struct Server {
    process: Option<Process>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Waits until its log has this.
    #[track_caller]
    pub fn says(&self, what: &str) {
        eventually(&format!("the log has '{what}'"), || {
            self.process().stderr().contains(what)
        });
    }

    /// Waits until `process` says where it listens.
    #[track_caller]
    pub fn new(mut process: Process) -> Self {
        let mut addresses = Vec::new();
        eventually("a server says where it listens", || {
            let status = process.ended();
            assert!(
                status.is_none(),
                "'{}' ended early ({status:?})\n{}",
                process.what,
                process.said()
            );
            addresses = listening(&process.stdout());
            !addresses.is_empty()
        });
        Self {
            process: Some(process),
            addresses,
        }
    }

    /// Where it listens; the first of several.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Everywhere it listens: whole lines are looked at, so ask after all were printed.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        listening(&self.process().stdout())
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it was not stopped yet")
    }

    /// Asks it to stop; it must end with status 0, for that is what it was asked for.
    #[track_caller]
    pub fn stop(mut self) -> Finished {
        let process = self.process.take().expect("it is stopped once");
        process.signal(Signal::SIGTERM);
        process
            .finish_within(Duration::from_secs(20))
            .assert_code(0)
    }

    /// Waits for its end, of which it knows.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let process = self.process.take().expect("it ends once");
        process.finish_within(Duration::from_secs(20))
    }

    /// Kills it without a warning.
    #[track_caller]
    pub fn kill(mut self) -> Finished {
        let process = self.process.take().expect("it is killed once");
        process.signal(Signal::SIGKILL);
        process.finish()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take()
            && !process.reaped
        {
            let _ = kill(process.pid(), Signal::SIGTERM);
            holds_within(Duration::from_secs(5), || process.ended().is_some());
        }
    }
}

/// The addresses in the complete lines of a server's output.
fn listening(stdout: &str) -> Vec<SocketAddr> {
    stdout
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .filter_map(|line| line.trim_end().strip_prefix("listening on "))
        .map(|address| address.parse().expect("listening on ADDR:PORT"))
        .collect()
}
