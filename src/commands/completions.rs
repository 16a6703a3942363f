//! `cascade completions`: what makes a shell complete the command line.

use clap_complete::generate;

use super::Status;
use crate::cli::{Cli, Completions, Shell};
use crate::output::print_bytes;

/// Prints the completions for a shell.
///
/// # Errors
/// Where standard output takes nothing.
pub fn run(options: &Completions) -> anyhow::Result<Status> {
    let mut command = public();
    let shell = match options.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::Zsh => {
            command = with_colons_escaped(command);
            clap_complete::Shell::Zsh
        }
    };
    let mut script = Vec::new();
    generate(shell, &mut command, "cascade", &mut script);
    if options.shell == Shell::Fish {
        script.extend(arguments_in_fish(&command).into_bytes());
    }
    print_bytes(&script)?;
    Ok(Status::Done)
}

/// The command line without what is hidden, which the generators would offer.
fn public() -> clap::Command {
    let all = Cli::with_topics();
    let commands = all.get_subcommands().filter(|one| !one.is_hide_set());
    clap::Command::new("cascade")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .propagate_version(true)
        .subcommands(commands.cloned())
}

/// The generator for zsh takes the names of values as they are, where a colon ends the name: `HOST:PORT` would make
/// `PORT` something to run.
fn with_colons_escaped(command: clap::Command) -> clap::Command {
    command
        .mut_subcommands(with_colons_escaped)
        .mut_args(|argument| {
            let names: Option<Vec<String>> = argument
                .get_value_names()
                .map(|names| names.iter().map(|name| name.replace(':', "\\:")).collect());
            match names {
                Some(names) => argument.value_names(names),
                None => argument,
            }
        })
}

/// The generator for fish leaves out the values of arguments that are no options, such as the topics of `help`.
fn arguments_in_fish(command: &clap::Command) -> String {
    let mut script = String::new();
    for command in command.get_subcommands() {
        let name = command.get_name();
        let values = command
            .get_positionals()
            .flat_map(clap::Arg::get_possible_values);
        for value in values {
            let value = value.get_name();
            script += &format!(
                "complete -c cascade -n \"__fish_cascade_using_subcommand {name}\" -f -a {value}\n"
            );
        }
    }
    script
}
