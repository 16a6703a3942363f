//! Commands that look, measure and explain: `status`, `compare`, `help`, `completions`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};

use super::values::{patience, seconds};
use crate::compare::plan::ServiceKind;
use crate::server::Model;

/// `cascade compare`
#[derive(Debug, Args)]
pub struct Compare {
    /// What the servers offer: lines echoed, blocks of a file, or lists of peers
    #[arg(long, value_name = "SERVICE", value_enum, default_value_t = ServiceKind::Echo)]
    pub service: ServiceKind,
    /// Compare these models, separated by commas [default: all]
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', num_args = 1, hide_default_value = true, default_values_t = Model::ALL)]
    pub models: Vec<Model>,
    /// Numbers of clients at once, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', num_args = 1, default_value = "1,16,256", value_parser = clap::value_parser!(u16).range(1..=4000))]
    pub clients: Vec<u16>,
    /// Measure each cell for this long, over all rounds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    pub duration: Duration,
    /// Measure in N rounds, each in another order
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000), default_value_t = 5)]
    pub rounds: u16,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with tables and plots to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// `cascade compare-part`
#[derive(Debug, Args)]
pub struct ComparePart {
    /// The process that compares.
    pub parent: i32,
    /// What the part does.
    pub role: Role,
    /// Of the server.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// What a process of a comparison does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Serves, as the command in its arguments.
    Server,
    /// Plays the clients.
    Load,
    /// Measures what a flow of control costs.
    Cost,
    /// Serves, and crashes on request.
    Crashable,
    /// Serves lists from a registry that it has filled.
    Registry,
}

/// `cascade status`
#[derive(Debug, Args)]
pub struct Status {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Wait this long for an answer
    #[arg(long, value_name = "TIME", value_parser = patience, default_value = "5s")]
    pub timeout: Duration,
    /// The control socket of the server: what was given with --control
    #[arg(value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    pub socket: PathBuf,
}

/// `cascade help`
#[derive(Debug, Args)]
pub struct Help {
    /// A command, or a page of the manual [default: a summary]
    #[arg(value_name = "TOPIC", hide_possible_values = true)]
    pub topic: Option<String>,
}

/// `cascade completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// A shell that completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// With bash-completion
    Bash,
    /// From 3.0
    Fish,
    /// With compinit
    Zsh,
}
