//! How the program ends. cascade(1), EXIT STATUS.

use std::fmt;
use std::process::ExitCode;

/// How a command ended, where no error explains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// 0: done.
    Done,
    /// 1: something failed, and was said.
    Failed,
    /// 2: the command line made no sense, and it was said how.
    Usage,
    /// 3: data are missing or wrong.
    DataMissing,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        ExitCode::from(status as u8)
    }
}

/// An error in how the program was called that the parser cannot see; exit status 2.
#[derive(Debug)]
pub struct UsageError(pub &'static str);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; try 'cascade help'", self.0)
    }
}

impl std::error::Error for UsageError {}
