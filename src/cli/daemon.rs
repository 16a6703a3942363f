//! Options that only daemons have: commands that run until a signal.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::SERVICE;
use crate::logging::{Format, LogLevel};

/// How a daemon gets on with what runs it.
#[derive(Debug, Clone, Default, Args)]
pub struct DaemonOptions {
    /// Keep the process id in this file, locked, while it runs
    #[arg(help_heading = SERVICE, long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// Serve one connection, on standard input and output: of inetd, s6 or a unit with Accept=yes
    #[arg(help_heading = SERVICE, long, conflicts_with_all = ["listen", "model", "pidfile"])]
    pub inetd: bool,
    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogOptions,
}

/// Who is told how a daemon is.
#[derive(Debug, Clone, Default, Args)]
pub struct StatusOptions {
    /// Answer 'cascade status' on this Unix socket
    #[arg(help_heading = SERVICE, long, value_name = "PATH", value_hint = ValueHint::FilePath, conflicts_with = "inetd")]
    pub control: Option<PathBuf>,
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct LogOptions {
    /// What the lines of the log are
    #[arg(help_heading = SERVICE, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: Format,
    /// Log this and what is more important; --verbose logs at least debug, --quiet at most warn
    #[arg(help_heading = SERVICE, long, value_enum, value_name = "LEVEL", default_value_t)]
    pub log_level: LogLevel,
}

/// What a file says of a daemon. See [`crate::config`].
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigOptions {
    /// Read options from this file as well, in TOML and by the same names
    #[arg(short, long, value_name = "CONFIG", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Check the options, the configuration and the files that they name, and end
    #[arg(long)]
    pub check: bool,
}
