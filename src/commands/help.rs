//! `cascade help`: the manual page of a topic, as `git help` does it.

use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;

use super::Status;
use crate::cli::{Cli, Help, PAGES};
use crate::manual;
use crate::output::{is_coloured, print_bytes};

/// Shows the manual page of the topic: with man(1), where that has it, otherwise the one that is compiled in.
///
/// # Errors
/// Where it cannot be written.
pub fn run(options: &Help) -> anyhow::Result<Status> {
    let Some(topic) = &options.topic else {
        return summary(&["--help"]);
    };
    let page = Page::of(topic);
    if page.is_installed() {
        return Err(page.man(None).exec()).context("cannot run man");
    }
    match manual::page(&page.name, page.section) {
        Some(text) => show_text(&text).map(|()| Status::Done),
        None => summary(&[topic, "--help"]),
    }
}

/// Shows a text on the terminal a screen at a time, where there is what can do that; otherwise prints it.
fn show_text(text: &str) -> anyhow::Result<()> {
    let pager = ["MANPAGER", "PAGER"].map(std::env::var_os);
    let pager = pager.into_iter().flatten().find(|pager| !pager.is_empty());
    let pager = pager.unwrap_or_else(|| "less".into());
    if std::io::stdout().is_terminal() {
        // The shell knows what options and blanks mean in the variable.
        let mut shell = Command::new("sh");
        let shell = shell
            .arg("-c")
            .arg(&pager)
            .stdin(Stdio::piped())
            .stderr(Stdio::null());
        if let Ok(mut child) = shell.spawn() {
            // A reader that has seen enough ends the pager before it has all.
            let _ = child
                .stdin
                .take()
                .map(|mut to| to.write_all(text.as_bytes()));
            // Where there is no pager, the shell says so by its status.
            if child.wait().is_ok_and(|status| status.code() != Some(127)) {
                return Ok(());
            }
        }
    }
    print_bytes(text.as_bytes())
}

/// What this command line prints, which asks for help.
fn summary(words: &[&str]) -> anyhow::Result<Status> {
    let words = ["cascade"].iter().chain(words);
    let Err(help) = Cli::with_topics().try_get_matches_from(words) else {
        return Ok(Status::Done);
    };
    show(&help)?;
    Ok(Status::Done)
}

/// Prints what the parser answers who asked for the help or for the version.
///
/// # Errors
/// As [`print_bytes`].
pub fn show(help: &clap::Error) -> anyhow::Result<()> {
    let text = help.render();
    let text = match is_coloured() {
        true => text.ansi().to_string(),
        false => text.to_string(),
    };
    print_bytes(text.as_bytes())
}

/// What can be typed, to somebody who typed too little.
pub fn show_what_there_is() {
    let mut cli = Cli::with_topics();
    let typed = std::env::args().nth(1).unwrap_or_default();
    cli.build();
    let command = match cli.find_subcommand_mut(&typed) {
        Some(command) => command.render_help(),
        None => cli.render_help(),
    };
    // It is no result, and where nobody reads it, nobody needs it.
    let _ = std::io::stderr().write_all(command.to_string().as_bytes());
}

/// A page of the manual.
struct Page {
    name: String,
    /// Where the name alone is not enough.
    section: Option<&'static str>,
}

impl Page {
    fn of(topic: &str) -> Self {
        match PAGES.iter().find(|(named, _, _)| *named == topic) {
            Some((_, section, name)) => Self {
                name: (*name).into(),
                section: Some(section),
            },
            None => Self {
                name: format!("cascade-{topic}"),
                section: None,
            },
        }
    }

    fn is_installed(&self) -> bool {
        let mut man = self.man(Some("-w"));
        man.stdin(Stdio::null());
        let found = man.stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    }

    /// man(1) with an option for the page: first of all the one that was installed together with this program.
    fn man(&self, option: Option<&str>) -> Command {
        let mut man = Command::new("man");
        if let Some(beside) = pages_beside() {
            let mut path = beside.into_os_string();
            path.push(":");
            // An end of ":" stands for the directories that man would search by itself.
            path.push(std::env::var_os("MANPATH").unwrap_or_default());
            man.env("MANPATH", path);
        }
        // Options go first: behind a name, man takes them for names.
        man.args(option).args(self.section).arg(&self.name);
        man
    }
}

/// `PREFIX/share/man`, where the program is in `PREFIX/bin` and there are pages.
fn pages_beside() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let pages = program.parent()?.parent()?.join("share/man");
    // The pages may be compressed, in whatever way man(1) knows.
    pages.join("man1").is_dir().then_some(pages)
}
