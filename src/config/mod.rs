//! A daemon's configuration: the options of its command line in a file, by the same names. cascade.toml(5).
//!
//! The file is made into the options that could have been typed, and the command line is understood once more with them
//! in it. So what a value must be is said in one place, and there is no option that a file cannot have.
//!
//! * [`entries`] reads the file: names and values, with their lines.
//! * [`options`] makes options of them.
//! * [`changes`] says what of a file that is read again takes a restart.
//!
//! What was typed replaces what the file says, a list as a whole; files are added to those of the file. A tracker's file
//! may also be the one that is in use elsewhere: JSON, which begins with a brace. See [`crate::tracker::config`].

pub mod changes;
pub mod entries;
pub mod options;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use thiserror::Error;

use crate::cli::{Cli, Command, Target, mistake};
use crate::net::address::ListenAddress;
use crate::text::escape_path;
use crate::tracker::config::Config as Json;
use changes::Said;
use entries::Mistake;
use options::FileOption;

/// The commands that can be configured.
pub const DAEMONS: [&str; 2] = ["tracker", "peer"];

/// How the file is opened.
pub type Open<'a> = &'a dyn Fn(&Path) -> io::Result<File>;

/// A command line together with its configuration.
#[derive(Debug)]
pub struct Understood {
    /// What is to be done.
    pub cli: Cli,
    /// What the file says that is in force.
    pub said: Said,
}

/// Why a command line cannot be understood.
#[derive(Debug)]
pub enum NotUnderstood {
    /// What was typed is wrong, or asks for help.
    Typed(clap::Error),
    /// The file is wrong.
    File(ConfigError),
}

impl fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Typed(error) => f.write_str(&mistake::reason(error)),
            Self::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NotUnderstood {}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}: {error}", escape_path(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It makes no sense.
    #[error("cannot understand {place}: {reason}")]
    Wrong {
        /// File and line.
        place: Place,
        /// What is wrong there.
        reason: String,
    },
}

impl ConfigError {
    /// Whether it is the words that are wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Wrong { .. })
    }
}

/// `FILE:LINE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape_path(&self.path))?;
        match self.line {
            Some(line) => write!(f, ":{line}"),
            None => Ok(()),
        }
    }
}

/// Understands what was typed, the program's name first, with the configuration that it names.
///
/// # Errors
/// What is wrong with either, or the help that was asked for.
pub fn understand(arguments: &[OsString], open: Open<'_>) -> Result<Understood, NotUnderstood> {
    let Some(named) = Named::by(arguments) else {
        return Ok(Understood {
            cli: Cli::understand(arguments).map_err(NotUnderstood::Typed)?,
            said: Said::default(),
        });
    };
    let text = read(&named.path, open).map_err(NotUnderstood::File)?;
    if named.command == "tracker" && is_json(&text) {
        with_json(arguments, &named, &text)
    } else {
        with_toml(arguments, &named, &text)
    }
}

/// Understands what was typed anew, with the configuration as it is now. What changed in it since it was `said` and is
/// not followed at once is logged.
///
/// # Errors
/// As [`understand`].
pub fn again(said: &Said, at_once: &[&str], open: Open<'_>) -> Result<Cli, NotUnderstood> {
    let Understood { cli, said: now } = understand(&typed(), open)?;
    let changed = said.changed(&now, at_once);
    if !changed.is_empty() {
        let changed = changed.join(", ");
        log::warn!("the configuration has another {changed}: that takes a restart");
    }
    Ok(cli)
}

/// What was typed, the program's name first.
pub fn typed() -> Vec<OsString> {
    std::env::args_os().collect()
}

/// The configuration that was typed.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    /// Whose.
    command: String,
    /// clap's names of all that was typed.
    typed: BTreeSet<String>,
}

impl Named {
    /// Finds it. What is wrong with the command line, which may lack what the file has, is found later.
    fn by(arguments: &[OsString]) -> Option<Self> {
        // The other commands do not pay for it.
        if !arguments
            .get(1)
            .is_some_and(|command| DAEMONS.iter().any(|daemon| command == daemon))
        {
            return None;
        }
        let lenient = Cli::with_topics().ignore_errors(true);
        let matches = lenient.try_get_matches_from(arguments).ok()?;
        let (command, matches) = matches.subcommand()?;
        let path = matches.try_get_one::<PathBuf>("config").ok()??;
        let is_typed =
            |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
        Some(Self {
            path: path.clone(),
            command: command.to_owned(),
            typed: matches
                .ids()
                .filter(is_typed)
                .map(ToString::to_string)
                .collect(),
        })
    }

    fn wrong(&self, Mistake { line, reason }: Mistake) -> NotUnderstood {
        let path = self.path.clone();
        NotUnderstood::File(ConfigError::Wrong {
            place: Place { path, line },
            reason,
        })
    }
}

fn read(path: &Path, open: Open<'_>) -> Result<Vec<u8>, ConfigError> {
    let mut text = Vec::new();
    let read = open(path).and_then(|mut file| file.read_to_end(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(ConfigError::Io {
            path: path.to_owned(),
            error,
        }),
    }
}

/// No TOML begins with a brace.
fn is_json(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"{")
}

fn with_toml(
    arguments: &[OsString],
    named: &Named,
    text: &[u8],
) -> Result<Understood, NotUnderstood> {
    if is_json(text) {
        let reason = "it is JSON, which only a tracker reads: write NAME = VALUE".into();
        return Err(named.wrong(Mistake { line: None, reason }));
    }
    let mut cli = Cli::with_topics();
    // Then each of its options can be shown.
    cli.build();
    let command = cli.find_subcommand(&named.command).unwrap_or(&cli);
    let directory = named.path.parent().unwrap_or(Path::new(""));
    let entries = entries::parse(text).map_err(|mistake| named.wrong(mistake))?;
    let options =
        options::translate(command, &entries, directory).map_err(|mistake| named.wrong(mistake))?;
    let options = options::in_force(command, options, &named.typed);
    match Cli::understand(&with_options(arguments, &named.command, &options)) {
        Ok(cli) => Ok(Understood {
            cli,
            said: Said::by(options),
        }),
        Err(error) if is_of_both(error.kind()) => {
            Err(named.wrong(options::together(command, &error, &options)))
        }
        Err(error) => Err(NotUnderstood::Typed(error)),
    }
}

/// What can only be wrong with all options together, those of the file among them: each of these was right alone.
fn is_of_both(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ArgumentConflict | ErrorKind::MissingRequiredArgument
    )
}

/// What was typed, with the options of the file behind the command.
fn with_options(arguments: &[OsString], command: &str, options: &[FileOption]) -> Vec<OsString> {
    let is_command = |argument: &OsString| argument == command;
    let behind = arguments.iter().position(is_command).map_or(1, |at| at + 1);
    let (before, after) = arguments.split_at(behind.min(arguments.len()));
    let typed = options.iter().flat_map(|option| &option.typed);
    let of_file = typed.map(|(word, _)| word);
    before.iter().chain(of_file).chain(after).cloned().collect()
}

/// The file that trackers have elsewhere: what was typed replaces its port, and is added to its lists.
fn with_json(
    arguments: &[OsString],
    named: &Named,
    text: &[u8],
) -> Result<Understood, NotUnderstood> {
    let json = Json::parse(text).map_err(|error| {
        named.wrong(Mistake {
            line: None,
            reason: error.to_string(),
        })
    })?;
    let mut cli = Cli::understand(arguments).map_err(NotUnderstood::Typed)?;
    let mut said = Said::default();
    if let Command::Tracker(tracker) = &mut cli.command {
        if let Some(port) = json.port.filter(|_| tracker.listen.is_empty()) {
            tracker.listen = vec![ListenAddress::any(port)];
            said.add("port", port.to_string());
        }
        tracker
            .targets
            .extend(json.hashes.into_iter().map(Target::Hash));
        tracker.good_ip.extend(json.good_ips);
        tracker.ban_private |= json.ban_private;
    }
    Ok(Understood { cli, said })
}
