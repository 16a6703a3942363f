//! The log, on standard error: one line per event, one write per line.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::text::without_errno;
use log::{LevelFilter, Log, Metadata, Record};

/// Set while a progress bar is on the terminal, in this process and in the children forked meanwhile.
static BAR: AtomicBool = AtomicBool::new(false);

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

/// Tells the log that a progress bar stands in the terminal's last line.
pub fn set_bar(shown: bool) {
    BAR.store(shown, Ordering::Relaxed);
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
    let erase = if BAR.load(Ordering::Relaxed) {
        "\r\x1b[2K"
    } else {
        ""
    };
    // A log that cannot be written is no reason to end.
    let _ = std::io::stderr()
        .lock()
        .write_all(format!("{erase}{line}\n").as_bytes());
}
