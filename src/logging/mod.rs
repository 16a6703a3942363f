//! The log, on standard error: one line per event, one write per line. cascade(1), The log.

mod divert;
mod format;

use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::dup2_stderr;

use crate::text::without_errno;

pub use divert::{Diverted, divert};
pub use format::{Format, LogLevel};
use format::{Line, Style, Voice, is_journal};

/// Whether lines are JSON: what is said before the command line is known is text.
static FOR_PROGRAMS: AtomicBool = AtomicBool::new(false);
/// The process that was started with the journal as its standard error, where one was.
static JOURNAL: OnceLock<u32> = OnceLock::new();

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.level() <= log::max_level() {
            write(record.level(), Voice::Log, None, *record.args());
        }
    }

    fn flush(&self) {}
}

/// Starts the log at its default level: what an operator must know.
pub fn start() {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    let variable = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let is_it = |status: libc::stat| is_journal(&variable, status.st_dev, status.st_ino);
    if fstat(io::stderr()).is_ok_and(is_it) {
        let _ = JOURNAL.set(std::process::id());
    }
    // Whoever asks for a backtrace wants more than one line.
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        panic::set_hook(Box::new(say_panic));
    }
}

fn say_panic(info: &PanicHookInfo<'_>) {
    let place = info
        .location()
        .map_or(String::new(), |at| format!(" at {at}"));
    let what = info.payload_as_str().unwrap_or("no text");
    log::error!("panicked{place}: {what}");
}

/// Keeps the log, and whatever else is written to standard error, from a client whose connection that is: inetd(8) ties
/// all three streams to it. The log goes to syslog(3) then.
///
/// # Errors
/// Where that cannot be done.
pub fn keep_from_client() -> io::Result<()> {
    let (input, error) = (fstat(io::stdin())?, fstat(io::stderr()));
    let is_socket = SFlag::from_bits_truncate(input.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK;
    let is_it = |error: libc::stat| (error.st_dev, error.st_ino) == (input.st_dev, input.st_ino);
    if is_socket && error.is_ok_and(is_it) {
        divert::to_syslog();
        dup2_stderr(File::options().write(true).open("/dev/null")?)?;
    }
    Ok(())
}

/// Lines look like this from now on.
pub fn set_format(format: Format) {
    FOR_PROGRAMS.store(format == Format::Json, Ordering::Relaxed);
}

/// Whether lines are for programs, so that nothing else may stand between them.
pub fn is_for_programs() -> bool {
    FOR_PROGRAMS.load(Ordering::Relaxed)
}

fn style() -> Style {
    let format = match is_for_programs() {
        true => Format::Json,
        false => Format::Text,
    };
    Style {
        format,
        journal: JOURNAL.get().copied(),
        syslog: divert::goes_to_syslog(),
    }
}

/// Logs this and what is more important.
pub fn set_level(level: LogLevel) {
    log::set_max_level(Level::from(level).to_level_filter());
}

/// Logs every connection as well.
pub fn set_verbose(verbose: bool) {
    if verbose {
        log::set_max_level(LevelFilter::Debug);
    }
}

/// Logs only what goes wrong.
pub fn set_quiet(quiet: bool) {
    if quiet {
        log::set_max_level(log::max_level().min(LevelFilter::Warn));
    }
}

/// Logs what is about somebody who has connected, or whom we connected to.
#[inline]
pub fn about(remote: SocketAddr, level: Level, message: fmt::Arguments<'_>) {
    if level <= log::max_level() {
        write(level, Voice::Log, Some(remote), message);
    }
}

/// Logs a status block, for which a signal asked: its lines stay together.
pub fn status(lines: &[String]) {
    let line = |text: &String| {
        render(
            Level::Info,
            Voice::Log,
            None,
            format_args!("status: {text}"),
        )
    };
    divert::write(&lines.iter().map(line).collect::<String>());
}

/// Says an error and its causes, on one line.
pub fn complain(error: &anyhow::Error) {
    fail(format_args!("{}", causes(error)));
}

/// An error and its causes, without those that the one before has told already.
pub fn causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !last.ends_with(&cause) {
            text.push_str(&format!(": {cause}"));
        }
        last = cause;
    }
    text
}

/// Names what was being done in an error of the system that nobody has explained.
pub fn named(error: anyhow::Error, doing: &str) -> anyhow::Error {
    let is_of_system = |error: &io::Error| error.raw_os_error().is_some();
    let is_bare = error.downcast_ref().is_some_and(is_of_system) || error.is::<Errno>();
    match error.chain().count() == 1 && is_bare {
        true => error.context(doing.to_owned()),
        false => error,
    }
}

/// The exit status of a process of this role that did this: 1 where it failed, which it says.
pub fn exit_code(role: &str, went: anyhow::Result<()>) -> u8 {
    match went {
        Ok(()) => 0,
        Err(error) => {
            complain(&named(error, &format!("cannot go on with {role}")));
            1
        }
    }
}

/// As [`complain`], for an error that is only text.
pub fn fail(what: fmt::Arguments<'_>) {
    write(Level::Error, Voice::Error, None, what);
}

/// Tells whoever waits for it how far something is.
pub fn tell(text: &str) {
    if Level::Info <= log::max_level() {
        write(Level::Info, Voice::Plain, None, format_args!("{text}"));
    }
}

#[cold]
fn write(level: Level, voice: Voice, remote: Option<SocketAddr>, message: fmt::Arguments<'_>) {
    divert::write(&render(level, voice, remote, message));
}

fn render(
    level: Level,
    voice: Voice,
    remote: Option<SocketAddr>,
    message: fmt::Arguments<'_>,
) -> String {
    let line = Line {
        level,
        voice,
        pid: std::process::id(),
        remote,
        message: message
            .as_str()
            .map_or_else(|| without_errno(&message.to_string()).into(), Into::into),
    };
    line.render(style(), SystemTime::now())
}
