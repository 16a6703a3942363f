//! The log, on standard error: one line per event, one write per line.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::RwLock;

use crate::sys::fork;
use crate::text::without_errno;
use log::{LevelFilter, Log, Metadata, Record};

/// Where lines go instead of standard error, in this process and in the children forked meanwhile: while there are
/// progress bars on the terminal, only the process that draws them may write there.
static DIVERTED: RwLock<Option<UnixStream>> = RwLock::new(None);

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.level() <= log::max_level() {
            say(&format!(
                "cascade[{}]: {}",
                std::process::id(),
                record.args()
            ));
        }
    }

    fn flush(&self) {}
}

/// Starts the log at its default level: what an operator must know.
pub fn start() {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
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
        log::set_max_level(LevelFilter::Warn);
    }
}

/// The lines of this process and its children, for the process that draws bars.
#[derive(Debug)]
pub struct Diverted {
    lines: UnixStream,
    partial: Vec<u8>,
}

/// Diverts the log from standard error until [`Diverted`] is dropped.
///
/// # Errors
/// Where no socket can be had; nothing is diverted then.
pub fn divert() -> io::Result<Diverted> {
    let (lines, write) = UnixStream::pair()?;
    lines.set_nonblocking(true)?;
    // A line that finds no room gets lost: nobody waits for the drawing of bars.
    write.set_nonblocking(true)?;
    fork::always_keep(Some(write.as_fd()));
    if let Ok(mut diverted) = DIVERTED.write() {
        *diverted = Some(write);
    }
    Ok(Diverted {
        lines,
        partial: Vec::new(),
    })
}

impl Diverted {
    /// The lines that have arrived.
    pub fn take(&mut self) -> Vec<String> {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = self.lines.read(&mut buffer) {
            self.partial.extend_from_slice(&buffer[..n]);
        }
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.partial.split_off(end + 1);
        let lines = std::mem::replace(&mut self.partial, rest);
        String::from_utf8_lossy(&lines)
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Diverted {
    fn drop(&mut self) {
        fork::always_keep(None);
        if let Ok(mut diverted) = DIVERTED.write() {
            *diverted = None;
        }
        self.take().iter().for_each(|line| say(line));
    }
}

/// Logs a status block, for which a signal asked: its lines stay together.
pub fn status(lines: &[String]) {
    let pid = std::process::id();
    let block: Vec<String> = lines
        .iter()
        .map(|line| format!("cascade[{pid}]: status: {line}"))
        .collect();
    say(&block.join("\n"));
}

/// Says an error and its causes, on one line.
pub fn complain(error: &anyhow::Error) {
    say(&format!(
        "cascade: {}",
        without_errno(&format!("{error:#}"))
    ));
}

/// Writes one line to standard error with a single write, so that the lines of many processes do not mix.
pub fn say(line: &str) {
    let line = format!("{line}\n");
    // A log that cannot be written is no reason to end.
    let _ = match DIVERTED.read().as_deref() {
        Ok(Some(diverted)) => (&mut &*diverted).write_all(line.as_bytes()),
        _ => io::stderr().lock().write_all(line.as_bytes()),
    };
}
