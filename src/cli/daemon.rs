//! Options that only daemons have: commands that run until a signal.

use std::path::PathBuf;

use clap::Args;

/// How a daemon gets on with what runs it.
#[derive(Debug, Clone, Default, Args)]
pub struct DaemonOptions {
    /// Keep the process id in this file, locked, while it runs
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
}
