//! What the tests of the commands on files share: a directory of their own, and the program in it.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Content of [`golden_data`] in blocks of 64 bytes, described by sha256sum(1) and hand: 64 hex digits a line, the
/// header first.
pub const GOLDEN: [&str; 18] = [
    "4341534341444531000000000000000000000000000003e80000000000000040",
    "538598f63668de8854ac1110196abe75ff5743e8f434d5c78b4fded44d73d141",
    "bb2a3f1aabbfa8c030e3ca7d52c9f1552cda622c5757f0e5a039e58a61b4cf8c",
    "7385024468d5d9b7e2786ff22d4950a1d46c8ac4ad31107eb9c2b4558b7e257d",
    "ac336d79972b0233c2e6f8806bf7c81749b85ca69494a3217a24d94250caa47c",
    "27ef6384934da640082c865a0bcd01764a0b07b22b28ee0c61ffdd61784bece8",
    "c50f57087588555e5195e357406a9076a5a6adcdfe0be2c5da85c1c9d0a46f61",
    "8648d83cb5a785519bb1b0dcda29a7acbce80feda834542be334df692786c0af",
    "c0aecdb88a87a7ccd43e46fca273c9668d4ac05f0af0c5e9f6c7689f292362d2",
    "53d3bac06501a9859d11658468d2999358ac907bfdcff3c862de596ad8045e56",
    "3beff98b7a0c4b100faac7c5f355866d40ecbda8a1306147f0d786734e6a675f",
    "47afd4251985f3114212e0748c7accc549b5771cddecca4d0e6ea358e5d31281",
    "55aeba3a3568d4c64e298843b534481b2975fe31234fde1a3632823fe168f6f8",
    "dca9ae85bf8a752338cf86f777c110eabd8c7860033ba0d92c66e7aa0308e8a9",
    "86f7fd7f3407b422973f18d4616fecc62d3ea9d19e61a67eefcd9e33ded241f5",
    "40cbca6b8f11066993ad1d9ebda83c136a36a12fddda21c61c4b5aa7ddbf9f86",
    "7b5a77b43a6fbd6e48c5933035a1ffad64a96954f2af51535f2272aaafe14f1f",
    "90e808ff6cbe4427b2a929947e78a509217d7f7f46c04506c6eb69f228c9c903",
];
/// The SHA-256 of [`GOLDEN`].
pub const GOLDEN_HASH: &str = "349229121c618ae03e3d30d4dea8e679b1a1a2495414208005a04a3369141883";
/// The SHA-256 of [`golden_data`].
pub const GOLDEN_DATA_HASH: &str =
    "538598f63668de8854ac1110196abe75ff5743e8f434d5c78b4fded44d73d141";

/// 1000 bytes that do not repeat.
pub fn golden_data() -> Vec<u8> {
    (0..1000u32)
        .map(|i| ((i * i + i / 7) % 251) as u8)
        .collect()
}

/// The bytes of [`GOLDEN`].
pub fn golden_cascade() -> Vec<u8> {
    hex::decode(GOLDEN.concat()).expect("hexadecimal digits")
}

/// How the program ended, and what it printed.
#[derive(Debug)]
pub struct Ended {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        }
    }
}

impl Ended {
    /// It did what was asked and had nothing to complain about; answers what it printed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            (self.status, self.stderr.as_str()),
            (Some(0), ""),
            "{self:?}"
        );
        self.stdout
    }

    /// It failed with this status, and said why in this one line; answers what it printed.
    #[track_caller]
    pub fn failed(self, status: i32, line: &str) -> String {
        assert_eq!(self.status, Some(status), "{self:?}");
        assert_eq!(self.stderr, format!("{line}\n"));
        self.stdout
    }

    /// It found data missing or wrong; answers what it printed.
    #[track_caller]
    pub fn missing(self) -> String {
        assert_eq!(
            (self.status, self.stderr.as_str()),
            (Some(3), ""),
            "{self:?}"
        );
        self.stdout
    }
}

/// A directory that is removed at the end, in which the program runs.
pub struct Sandbox(TempDir);

impl Sandbox {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(name), content).expect("a file is written");
        self
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("a file is read")
    }

    /// Makes a file of zeros that takes no room.
    pub fn sparse(&self, name: &str, length: u64) -> File {
        let file = File::create(self.path(name)).expect("a file is made");
        file.set_len(length).expect("a sparse file");
        file
    }

    /// All names in the directory, in order.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("the directory is read");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into()
            })
            .collect();
        names.sort();
        names
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
        command.args(arguments).current_dir(self.0.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).stdin(Stdio::null()).output();
        output.expect("the program runs").into()
    }

    /// Starts the program with pipes.
    /// Starts the program with the signals of a terminal at their defaults: whatever runs the tests in the background
    /// may ignore them, and children inherit that.
    pub fn start(&self, arguments: &[&str]) -> Child {
        Command::new("env")
            .arg("--default-signal=HUP,INT,QUIT")
            .arg(env!("CARGO_BIN_EXE_cascade"))
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    }
}

/// Waits until a program has read so much from files: then it is amid its work.
pub fn wait_until_it_has_read(child: &Child, bytes: u64) {
    let path = format!("/proc/{}/io", child.id());
    let deadline = Instant::now() + Duration::from_secs(60);
    while read_so_far(Path::new(&path)) < bytes {
        assert!(Instant::now() < deadline, "it reads nothing");
        std::thread::yield_now();
    }
}

fn read_so_far(path: &Path) -> u64 {
    let text = fs::read_to_string(path).expect("the accounts of a running program");
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.and_then(|count| count.parse().ok()).expect("a number")
}
