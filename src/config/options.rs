//! Names and values as options that could have been typed, each checked as the command line checks it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, ArgAction, Command, ValueHint};

use super::entries::{Entry, Mistake, Value, Word};
use crate::cli::{self, Wanted, mistake};
use crate::text::escape;

/// The name of what is typed without an option: cascade files, hashes, links.
pub const FILES: &str = "files";
/// Options that make no sense in a file.
const ONLY_TYPED: [&str; 4] = ["config", "check", "help", "version"];

/// An option of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOption {
    /// clap's name for it.
    pub id: String,
    /// Its name in the file.
    pub name: String,
    /// Where it is in the file.
    pub line: usize,
    /// As it would be typed, with the lines on which that is.
    pub typed: Vec<(OsString, usize)>,
}

impl FileOption {
    /// Whether it is what is typed without an option.
    pub fn is_files(&self) -> bool {
        self.name == FILES
    }
}

/// The options that the entries are, for this command. Paths are those from the directory.
///
/// # Errors
/// Where there is no such option, and where it cannot have such a value.
pub fn translate(
    command: &Command,
    entries: &[Entry],
    directory: &Path,
) -> Result<Vec<FileOption>, Mistake> {
    let translate = |entry| {
        let option = option(command, entry, directory)?;
        check(command, entry, &option).map(|()| option)
    };
    entries.iter().map(translate).collect()
}

/// The options that nothing which was typed replaces: the same option, or one that cannot be with it. Files are added to.
pub fn in_force(
    command: &Command,
    options: Vec<FileOption>,
    typed: &BTreeSet<String>,
) -> Vec<FileOption> {
    let find = |id: &str| command.get_arguments().find(|arg| arg.get_id() == id);
    let conflict = |one: &Arg, other: &Arg| {
        let of_one = command.get_arg_conflicts_with(one);
        let of_other = command.get_arg_conflicts_with(other);
        of_one.iter().any(|arg| arg.get_id() == other.get_id())
            || of_other.iter().any(|arg| arg.get_id() == one.get_id())
    };
    let stays = |option: &FileOption| {
        let Some(arg) = find(&option.id) else {
            return true;
        };
        let mut typed = typed.iter().filter_map(|id| find(id));
        option.is_files()
            || !typed.any(|other| other.get_id() == arg.get_id() || conflict(arg, other))
    };
    options.into_iter().filter(stays).collect()
}

/// What is wrong with options that are right by themselves.
pub fn together(command: &Command, error: &clap::Error, options: &[FileOption]) -> Mistake {
    let about = mistake::arguments(error);
    let is_about = |option: &&FileOption| {
        let shown = command
            .get_arguments()
            .find(|arg| *arg.get_id() == option.id);
        shown.is_some_and(|arg| about.contains(&arg.to_string()))
    };
    Mistake {
        line: options.iter().find(is_about).map(|option| option.line),
        reason: mistake::reason(error),
    }
}

fn option(command: &Command, entry: &Entry, directory: &Path) -> Result<FileOption, Mistake> {
    let name = escape(entry.name.as_bytes());
    let wrong = |reason: String| Mistake::on(entry.line, reason);
    if ONLY_TYPED.contains(&&*entry.name) {
        return Err(wrong(format!("'{name}' belongs on the command line")));
    }
    let arg = command
        .get_arguments()
        .find(|arg| is_named(arg, &entry.name))
        .ok_or_else(|| wrong(unknown(command, &entry.name)))?;
    let takes_values = arg.get_action().takes_values();
    let typed = match &entry.value {
        Value::Flag(_) if takes_values => {
            return Err(wrong(format!("'{name}' cannot be true or false")));
        }
        Value::Flag(false) => Vec::new(),
        Value::Flag(true) => vec![(format!("--{}", entry.name).into(), entry.line)],
        _ if !takes_values => return Err(wrong(format!("'{name}' must be true or false"))),
        Value::List(_) if !matches!(arg.get_action(), ArgAction::Append) => {
            return Err(wrong(format!("'{name}' cannot be a list")));
        }
        Value::One(word) => vec![(typed(arg, &entry.name, word, directory), word.line)],
        Value::List(words) => words
            .iter()
            .map(|word| (typed(arg, &entry.name, word, directory), word.line))
            .collect(),
    };
    Ok(FileOption {
        id: arg.get_id().to_string(),
        name: entry.name.clone(),
        line: entry.line,
        typed,
    })
}

fn is_named(arg: &Arg, name: &str) -> bool {
    match arg.get_long() {
        Some(long) => {
            long == name
                || arg
                    .get_all_aliases()
                    .is_some_and(|them| them.contains(&name))
        }
        None => arg.is_positional() && name == FILES,
    }
}

/// A value as it would be typed. Paths are those from the directory of the file: a daemon may be started anywhere.
fn typed(arg: &Arg, name: &str, word: &Word, directory: &Path) -> OsString {
    let from_directory = |path: &str| directory.join(path).into_os_string();
    if arg.is_positional() {
        return match cli::wanted(word.text.clone().into()) {
            Ok(Wanted::CascadeFile(_)) => from_directory(&word.text),
            // A hash, a link, or what should be one.
            _ => word.text.clone().into(),
        };
    }
    let is_path = matches!(
        arg.get_value_hint(),
        ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath
    );
    let mut typed = OsString::from(format!("--{name}="));
    if is_path && !word.text.is_empty() {
        typed.push(from_directory(&word.text));
    } else {
        typed.push(&word.text);
    }
    typed
}

/// Whether the command line takes the option by itself.
fn check(command: &Command, entry: &Entry, option: &FileOption) -> Result<(), Mistake> {
    let Err(error) = try_alone(command, option.typed.iter().map(|(word, _)| word.clone())) else {
        return Ok(());
    };
    // Alone it lacks what it goes with.
    if error.kind() == ErrorKind::MissingRequiredArgument {
        return Ok(());
    }
    let wrong = mistake::value(&error);
    let words = match &entry.value {
        Value::List(words) => words.as_slice(),
        _ => &[],
    };
    let word = words.iter().find(|word| Some(&word.text) == wrong.as_ref());
    let mut reason = mistake::reason(&error);
    for shown in mistake::arguments(&error) {
        reason = reason.replace(&format!("'{shown}'"), &format!("'{}'", entry.name));
    }
    let tip = mistake::suggestion(&error);
    let tip = tip.map_or(String::new(), |tip| format!(" (did you mean {tip}?)"));
    let line = word.map_or(entry.line, |word| word.line);
    Err(Mistake::on(line, reason + &tip))
}

/// What is said of a name that no option has.
fn unknown(command: &Command, name: &str) -> String {
    let error = try_alone(command, [format!("--{name}").into()]).err();
    let suggested = error.and_then(|error| {
        let suggested = error.get(ContextKind::SuggestedArg)?.to_string();
        Some(suggested.trim_start_matches('-').to_owned())
    });
    let name = escape(name.as_bytes());
    match suggested.filter(|name| !ONLY_TYPED.contains(&&**name)) {
        Some(meant) => format!("there is no option '{name}' (did you mean '{meant}'?)"),
        None => format!("there is no option '{name}'"),
    }
}

fn try_alone(
    command: &Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(), clap::Error> {
    let command = command.clone().no_binary_name(true);
    command.try_get_matches_from(arguments).map(drop)
}
