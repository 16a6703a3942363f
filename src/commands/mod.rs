//! The commands: one file each, which shows the data flow of its role a step a line.
//!
//! A command answers the exit status of cascade(1): 0 done, 1 an error, 2 usage, 3 data missing or wrong.

pub mod compare;
pub mod compare_part;
pub mod completions;
pub mod create;
pub mod echo;
mod environment;
pub mod files;
pub mod get;
pub mod help;
pub mod info;
mod limits;
pub mod list;
pub mod peer;
mod progress;
pub mod share;
pub mod status;
pub mod target;
pub mod tracker;
pub mod verify;

use std::fs::File;
use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command, mistake};
use crate::config::{self, NotUnderstood, Understood};
pub use crate::exit::{Status, UsageError};
use crate::logging::{self, complain};
pub use crate::output::print;
use crate::sys::{inherited, init, needs, signals};
use crate::text::escape_path;

/// Parses the command line, runs the command, says what went wrong.
pub fn main() -> ExitCode {
    logging::start();
    if let Err(error) = init::leave_pid_1().and_then(|()| inherited::set_right()) {
        complain(&anyhow::Error::new(error).context("cannot begin"));
        return Status::Failed.into();
    }
    // Before anything can go wrong with the command line.
    if std::env::args_os().any(|word| word == "--inetd") && logging::keep_from_client().is_err() {
        return Status::Failed.into();
    }
    // Where it cannot be set, a write that fails ends the process: the default, and no reason not to begin.
    let _ = signals::let_writes_fail();
    let understood = match config::understand(&config::typed(), &|path| File::open(path)) {
        Ok(understood) => understood,
        Err(NotUnderstood::Typed(error)) => return usage(&error),
        Err(NotUnderstood::File(error)) => {
            let is_usage = error.is_usage();
            complain(&error.into());
            return if is_usage {
                Status::Usage
            } else {
                Status::Failed
            }
            .into();
        }
    };
    let doing = format!("cannot go on with 'cascade {}'", command_name());
    match run(understood).map_err(|error| logging::named(error, &doing)) {
        Ok(status) => status.into(),
        Err(error) if is_closed_pipe(&error) => Status::Done.into(),
        Err(error) => {
            complain(&error);
            if error.is::<UsageError>() {
                Status::Usage.into()
            } else {
                Status::Failed.into()
            }
        }
    }
}

/// Fails where the system lacks what the command cannot do without.
fn check_system(command: &Command) -> anyhow::Result<()> {
    needs::check(needs::ALL)?;
    if let Command::Tracker(_)
    | Command::Get(_)
    | Command::Peer(_)
    | Command::Share(_)
    | Command::Echo(_)
    | Command::Compare(_)
    | Command::ComparePart(_) = command
    {
        needs::check(needs::ROLES)?;
    }
    if let Command::Tracker(_) | Command::Share(_) = command {
        needs::check(needs::REGISTRY)?;
    }
    Ok(())
}

fn run(Understood { cli, said }: Understood) -> anyhow::Result<Status> {
    check_system(&cli.command).context("cannot begin")?;
    match cli.command {
        Command::Create(options) => create::run(&options),
        Command::Info(options) => info::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Tracker(options) => tracker::run(options, said),
        Command::List(options) => list::run(&options),
        Command::Get(options) => get::run(options),
        Command::Peer(options) => peer::run(options, said),
        Command::Status(options) => status::run(&options),
        Command::Share(options) => share::run(options),
        Command::Echo(options) => echo::run(options),
        Command::Compare(options) => compare::run(&options),
        Command::Help(options) => help::run(&options),
        Command::Completions(options) => completions::run(&options),
        Command::ComparePart(options) => compare_part::run(&options),
    }
}

/// Whoever read our results has seen enough: no error (`cascade info … | head -1`).
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Help goes to standard output; a mistake is one line on standard error and exit status 2.
fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match help::show(error) {
            Ok(()) => Status::Done.into(),
            Err(error) => {
                complain(&error);
                Status::Failed.into()
            }
        },
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            help::show_what_there_is();
            Status::Usage.into()
        }
        _ => {
            let tip = match mistake::suggestion(error) {
                Some(suggestion) => format!(" (did you mean {suggestion}?)"),
                None => String::new(),
            };
            let tip = mistake::file_meant(error).map_or(tip, |file| {
                format!(" (for the file of this name, type {})", escape_path(&file))
            });
            let help = help_command();
            logging::fail(format_args!(
                "cannot understand the command line: {}{tip}; try '{help}'",
                mistake::reason(error)
            ));
            Status::Usage.into()
        }
    }
}

/// The command that was typed.
fn command_name() -> String {
    let typed = std::env::args_os().nth(1).unwrap_or_default();
    typed.to_string_lossy().into_owned()
}

/// The command that helps with the command that was typed.
fn help_command() -> String {
    let typed = command_name();
    if Cli::command().find_subcommand(&*typed).is_some() {
        format!("cascade {typed} --help")
    } else {
        "cascade --help".into()
    }
}
