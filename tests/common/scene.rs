//! A directory of its own for a test, the processes that it starts there, and the proof that none is left.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::holds_within;
use super::process::{Finished, Process, Server};
use super::terminal::Terminal;

/// Marks the environment of every process that a test starts; their children inherit it.
const MARK: &str = "CASCADE_TEST_ID";

/// Where a test takes place. When it is over no process of it may be left.
pub struct Scene {
    directory: TempDir,
    id: String,
    started: AtomicU32,
}

impl Scene {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            id: format!("{}.{count}", std::process::id()),
            started: AtomicU32::new(0),
        }
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new directory of this name.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("a new directory");
        path
    }

    /// The built binary with this command, to be run in the scene's directory.
    pub fn cascade(&self, command: &str) -> Invocation<'_> {
        self.program(env!("CARGO_BIN_EXE_cascade")).arg(command)
    }

    /// Another program, to be run in the scene's directory.
    pub fn program(&self, program: &str) -> Invocation<'_> {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path());
        command.env_remove("CASCADE_TRACKER").env(MARK, &self.id);
        // A backtrace would hide the line that the test looks for.
        command.env_remove("RUST_BACKTRACE");
        Invocation {
            scene: self,
            command,
        }
    }

    /// A tracker for any hash, on a free port of 127.0.0.1.
    #[track_caller]
    pub fn tracker(&self) -> Server {
        self.cascade("tracker")
            .arg("--open")
            .args(["-l", "127.0.0.1:0"])
            .serve()
    }

    /// The processes that this scene started and that still run, and their descendants.
    pub fn left(&self) -> Vec<Pid> {
        // What the environment holds ends with a NUL, so that 1.1 is not found in 1.10.
        let mark = format!("{MARK}={}\0", self.id);
        let is_ours = |pid: &Pid| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
                environ
                    .windows(mark.len())
                    .any(|part| part == mark.as_bytes())
            })
        };
        fs::read_dir("/proc")
            .expect("/proc is mounted")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .map(Pid::from_raw)
            .filter(is_ours)
            .collect()
    }

    /// Checks that every process of the scene has ended, or does so within a moment.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let gone = holds_within(Duration::from_secs(3), || self.left().is_empty());
        assert!(gone, "processes are left: {:?}", self.left());
    }

    /// Kills whatever is left.
    pub fn kill_all(&self) {
        holds_within(Duration::from_secs(3), || {
            let left = self.left();
            for pid in &left {
                let _ = kill(*pid, Signal::SIGKILL);
            }
            left.is_empty()
        });
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A server that the test just dropped has ended; its children have a moment to follow it.
        let gone = holds_within(Duration::from_secs(3), || self.left().is_empty());
        if !gone {
            let left = self.left();
            self.kill_all();
            if !std::thread::panicking() {
                panic!("processes were left behind: {left:?}");
            }
        }
    }
}

/// A command line in the making.
pub struct Invocation<'a> {
    scene: &'a Scene,
    command: Command,
}

impl Invocation<'_> {
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Names a peer.
    pub fn peer(self, address: SocketAddr) -> Self {
        self.arg("-p").arg(address.to_string())
    }

    /// Names a tracker.
    pub fn tracker(self, address: SocketAddr) -> Self {
        self.arg("-t").arg(address.to_string())
    }

    /// Makes it the leader of a process group of its own.
    pub fn in_its_own_group(mut self) -> Self {
        use std::os::unix::process::CommandExt;
        self.command.process_group(0);
        self
    }

    #[track_caller]
    pub fn start(self) -> Process {
        let (stdout, stderr) = self.output();
        Process::start(self.command, stdout, stderr)
    }

    /// Starts it with a standard output that nobody reads: a pipe whose reading end is closed.
    #[track_caller]
    pub fn start_with_closed_stdout(mut self) -> Process {
        let (stdout, stderr) = self.output();
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let file = fs::File::create(&stderr).expect("a file for the output");
        self.command
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(file);
        Process::start_as_is(self.command, stdout, stderr)
    }

    /// Starts it with this as its standard input.
    #[track_caller]
    pub fn start_with_stdin(mut self, stdin: impl Into<Stdio>) -> Process {
        let (stdout, stderr) = self.output();
        let file = |path| fs::File::create(path).expect("a file for the output");
        self.command
            .stdin(stdin)
            .stdout(file(&stdout))
            .stderr(file(&stderr));
        Process::start_as_is(self.command, stdout, stderr)
    }

    /// Starts it with a terminal of this size as its standard error.
    #[track_caller]
    pub fn start_on_terminal(mut self, columns: u16, rows: u16) -> (Process, Terminal) {
        let (stdout, stderr) = self.output();
        let file = fs::File::create(&stdout).expect("a file for the output");
        let (terminal, slave) = Terminal::new(columns, rows);
        self.command.stdin(Stdio::null()).stdout(file).stderr(slave);
        let process = Process::start_as_is(self.command, stdout, stderr);
        (process, terminal)
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Finished {
        self.start().finish()
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn serve(self) -> Server {
        Server::new(self.start())
    }

    fn output(&self) -> (PathBuf, PathBuf) {
        let count = self.scene.started.fetch_add(1, Ordering::Relaxed);
        // Outside of what the test looks at, so that a listing shows only what the program made.
        let hidden = self.scene.path(".output");
        fs::create_dir_all(&hidden).expect("a directory for the output");
        (
            hidden.join(format!("{count}.out")),
            hidden.join(format!("{count}.err")),
        )
    }
}
