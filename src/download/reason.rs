//! Why something of a download failed, in the detail that a person wants to read.

use std::net::SocketAddr;
use std::{fmt, io};

use nix::errno::Errno;

/// Why, in the detail that a person wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ReasonKind {
    /// A system call failed: the code is its errno.
    Errno,
    /// The block with this number does not have its hash.
    WrongBlock,
    /// The block with this number has another length.
    WrongLength,
    /// The block with this number was answered with a status that makes no sense: the code.
    WrongStatus,
    /// It does not have the file.
    UnknownHash,
    /// It was silent for so many seconds.
    Silent,
    /// It closes without an answer.
    Closes,
    /// The block with this number could not be written: the code is the errno.
    CannotWrite,
}

impl ReasonKind {
    /// All of them, in the order of their numbers in a report.
    pub const ALL: [Self; 8] = [
        Self::Errno,
        Self::WrongBlock,
        Self::WrongLength,
        Self::WrongStatus,
        Self::UnknownHash,
        Self::Silent,
        Self::Closes,
        Self::CannotWrite,
    ];
}

/// A reason: its kind, a number and a code where there is one (see [`ReasonKind`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// What kind of reason.
    pub kind: ReasonKind,
    /// The block, or seconds.
    pub number: u32,
    /// The system's error, or the peer's status, or 0.
    pub code: i32,
}

impl Reason {
    /// A reason without a code.
    pub fn new(kind: ReasonKind, number: u32) -> Self {
        Self {
            kind,
            number,
            code: 0,
        }
    }

    /// The block that it is about, if it is about one.
    pub fn block(&self) -> Option<u32> {
        use ReasonKind::{CannotWrite, WrongBlock, WrongLength, WrongStatus};
        let about_one = matches!(
            self.kind,
            WrongBlock | WrongLength | WrongStatus | CannotWrite
        );
        about_one.then_some(self.number)
    }

    /// Whether a connection was neither accepted nor refused.
    pub fn is_timeout(&self) -> bool {
        self.kind == ReasonKind::Errno && self.code == libc::ETIMEDOUT
    }

    /// A failed system call.
    pub fn errno(error: &io::Error) -> Self {
        Self {
            kind: ReasonKind::Errno,
            number: 0,
            code: error.raw_os_error().unwrap_or(0),
        }
    }
}

/// How many peers an error names.
const NAMED: usize = 3;

/// What is wrong with these peers, in parentheses after a space; nothing where there is none.
pub fn of_peers(wrong: &[(SocketAddr, impl fmt::Display)]) -> String {
    let named = wrong.iter().take(NAMED);
    let mut parts: Vec<_> = named
        .map(|(peer, reason)| format!("{peer}: {reason}"))
        .collect();
    if wrong.len() > NAMED {
        parts.push(format!("and {} more", wrong.len() - NAMED));
    }
    match parts.is_empty() {
        true => String::new(),
        false => format!(" ({})", parts.join("; ")),
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, number, code } = *self;
        let error = || match code {
            0 => "unknown error".to_owned(),
            errno => Errno::from_raw(errno).desc().to_lowercase(),
        };
        match kind {
            ReasonKind::Errno => write!(f, "{}", error()),
            ReasonKind::WrongBlock => write!(f, "it sent a corrupt block ({number})"),
            ReasonKind::WrongLength => write!(f, "it sent a wrong length for block {number}"),
            ReasonKind::WrongStatus => write!(f, "it sent status {code}, which makes no sense"),
            ReasonKind::UnknownHash => write!(f, "it does not have the file"),
            ReasonKind::Silent => write!(f, "it was silent for {number} s"),
            ReasonKind::Closes => write!(f, "it closes connections without an answer"),
            ReasonKind::CannotWrite => write!(f, "cannot write block {number}: {}", error()),
        }
    }
}
