//! What was wrong with what was typed, in a line.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What is wrong, in clap's words, without the usage that it shows after them.
pub fn reason(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let what = lines.join(" ");
    let missing = what.strip_prefix("the following required arguments were not provided: ");
    missing.map_or_else(|| what.clone(), |names| format!("{names} is missing"))
}

/// What was probably meant.
pub fn suggestion(error: &clap::Error) -> Option<String> {
    let kinds = [
        ContextKind::SuggestedArg,
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedValue,
    ];
    let words: Vec<String> = kinds
        .into_iter()
        .find_map(|kind| error.get(kind))
        .map(words)?;
    Some(words.join(" or "))
}

/// The file that was meant with what looks like an option, as it has to be typed.
pub fn file_meant(error: &clap::Error) -> Option<PathBuf> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let is_meant = |word: &OsStr| {
        let is_option = word.as_bytes().starts_with(b"-") && word != "--";
        is_option && Path::new(word).exists()
    };
    let word = std::env::args_os().skip(1).find(|word| is_meant(word))?;
    Some(Path::new(".").join(word))
}

/// The arguments that it is about, as the usage shows them: `--ttl <SECONDS>`.
pub fn arguments(error: &clap::Error) -> Vec<String> {
    [ContextKind::InvalidArg, ContextKind::PriorArg]
        .into_iter()
        .filter_map(|kind| error.get(kind))
        .flat_map(words)
        .collect()
}

/// The value that it is about.
pub fn value(error: &clap::Error) -> Option<String> {
    error
        .get(ContextKind::InvalidValue)
        .map(|value| value.to_string())
}

fn words(value: &ContextValue) -> Vec<String> {
    match value {
        ContextValue::Strings(words) => words.clone(),
        word => vec![word.to_string()],
    }
}
