//! The command line: what can be typed. No I/O; what it means is decided in [`crate::commands`].

mod daemon;
mod local;
pub mod mistake;
mod serving;
mod tools;
mod transfer;
mod values;

use std::ffi::OsString;

use clap::builder::PossibleValuesParser;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use daemon::{ConfigOptions, DaemonOptions, LogOptions, StatusOptions};
pub use local::{Create, Info, Verify};
pub use serving::{Echo, EchoClient, EchoServe, EchoSide, LimitOptions, ServerOptions, Tracker};
pub use tools::{Compare, ComparePart, Completions, Help, Role, Shell, Status};
pub use transfer::{Get, List, Peer, Reporting, Share, Sources};
pub use values::{Target, Wanted};
pub(crate) use values::{tracker, wanted};

/// The port on which a tracker listens by default.
pub const TRACKER_PORT: u16 = 8888;
/// Where the peer of `share` listens if its user does not say otherwise, and it is free.
pub const PEER_PORT: u16 = 8889;

/// The headings under which `--help` has the options that most people leave alone.
pub(crate) const SERVING: &str = "Serving others";
pub(crate) const SERVICE: &str = "Running as a service";

/// What a newcomer does next.
const FIRST_STEPS: &str =
    "Share a file with 'cascade share FILE'; elsewhere, run the line that it prints.
'cascade help' shows the manual, 'cascade help get' the page of a command.";

/// Share files in a peer-to-peer network, every block verified.
#[derive(Debug, Parser)]
#[command(
    name = "cascade",
    version,
    about,
    after_help = FIRST_STEPS,
    propagate_version = true,
    max_term_width = 100
)]
#[command(
    subcommand_required = true,
    arg_required_else_help = false,
    infer_subcommands = false,
    disable_help_subcommand = true,
    disable_help_flag = true
)]
pub struct Cli {
    /// Print help
    // The longer form of it explains the values of options, a line each with an empty one between: that is for the manual.
    #[arg(short, long, global = true, display_order = 998, action = ArgAction::HelpShort)]
    pub help: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads what was typed, the name of the program first.
    ///
    /// # Errors
    /// What is wrong with it, or the help that it asked for.
    pub fn understand(arguments: &[OsString]) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::with_topics().try_get_matches_from(arguments)?)
    }

    /// The command line, with the topics that `help` has: the commands, and [`PAGES`].
    pub fn with_topics() -> clap::Command {
        let cli = Self::command();
        let commands = cli
            .get_subcommands()
            .filter(|command| !command.is_hide_set() && command.get_name() != "help")
            .map(|command| command.get_name().to_owned());
        let pages = PAGES.map(|(topic, _, _)| topic.to_owned());
        let topics = PossibleValuesParser::new(commands.chain(pages).collect::<Vec<_>>());
        cli.mut_subcommand("help", |help| {
            help.mut_arg("topic", |topic| topic.value_parser(topics))
        })
    }
}

/// What `help` knows besides the commands that have a page of their own, and the section and name of the page.
pub const PAGES: [(&str, &str, &str); 5] = [
    ("help", "1", "cascade"),
    ("cascade", "1", "cascade"),
    ("format", "5", "cascade"),
    ("config", "5", "cascade.toml"),
    ("protocol", "7", "cascade-protocol"),
];

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Share files: print the line to run elsewhere, and serve them
    Share(Share),
    /// Make cascade files, which describe data files block by block
    Create(Create),
    /// Show what cascade files say
    Info(Info),
    /// Check data files against their cascade files
    Verify(Verify),
    /// Run a tracker, which knows the peers of each file
    Tracker(Tracker),
    /// List the peers that a tracker knows for a file
    List(List),
    /// Download files, serving what is there meanwhile
    Get(Get),
    /// Run a peer, which serves files and downloads what is missing
    Peer(Peer),
    /// Show the status of a running tracker or peer
    Status(Status),
    /// Echo lines: a server to try the server models with, and a client
    Echo(Echo),
    /// Measure the server models against each other on this machine
    Compare(Compare),
    /// Show the manual page of a command, a format or the protocol
    Help(Help),
    /// Print what makes a shell complete the command line
    Completions(Completions),
    /// A process of a comparison, which starts it
    #[command(hide = true)]
    ComparePart(ComparePart),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Model;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let typed = [
            "cascade",
            "compare",
            "--models",
            "event,process",
            "--clients",
            "1,4",
        ];
        let Ok(Cli {
            command: Command::Compare(compare),
            ..
        }) = Cli::try_parse_from(typed)
        else {
            panic!("it can be understood");
        };
        assert_eq!(compare.models, [Model::Event, Model::Process]);
        assert_eq!(compare.clients, [1, 4]);
        for list in ["0", "4001", "1,,2", "x"] {
            assert!(Cli::try_parse_from(["cascade", "compare", "--clients", list]).is_err());
        }
    }
}
