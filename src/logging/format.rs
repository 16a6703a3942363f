//! How lines of the log look: for people, for programs, and for the journal of systemd.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::SystemTime;

use clap::ValueEnum;
use log::Level;
use serde::Serialize;

use crate::text::one_line;

/// What the lines of the log are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text, for people
    #[default]
    Text,
    /// A JSON object, for programs
    Json,
}

/// The levels that a user can choose.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What ends the program, or what it was told to do and cannot
    Error,
    /// What goes wrong
    Warn,
    /// What an operator must know
    #[default]
    Info,
    /// Every connection
    Debug,
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}

/// The facility of syslog(3) of programs in the background.
const DAEMON: u8 = 3 << 3;

/// Something that is said.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub level: Level,
    pub voice: Voice,
    /// The process that says it.
    pub pid: u32,
    /// Whom it is about.
    pub remote: Option<SocketAddr>,
    pub message: Cow<'a, str>,
}

/// Who speaks, as text shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// The log: `cascade[PID]: `.
    Log,
    /// The program, which has failed: `cascade: `.
    Error,
    /// Nobody in particular: how far a download is.
    Plain,
}

/// How and where this process and its children write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub format: Format,
    /// The process whose number the journal knows, where standard error is the journal.
    pub journal: Option<u32>,
    /// Whether it is syslog(3) that gets the lines.
    pub syslog: bool,
}

/// The fields of a line of JSON, in this order. They are documented, and stay; others may be added.
#[derive(Debug, Serialize)]
struct Fields<'a> {
    time: String,
    level: &'static str,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<SocketAddr>,
    message: &'a str,
}

impl Line<'_> {
    /// The whole line with its end.
    pub fn render(&self, style: Style, now: SystemTime) -> String {
        let message = one_line(&self.message);
        let priority = match (style.syslog, style.journal) {
            (true, _) => self.priority(DAEMON),
            (false, Some(_)) => self.priority(0),
            (false, None) => String::new(),
        };
        let tag = match style.syslog && style.format == Format::Json {
            true => format!("cascade[{}]: ", self.pid),
            false => String::new(),
        };
        match style.format {
            Format::Text => format!("{priority}{}{message}\n", self.prefix(style)),
            Format::Json => {
                let fields = Fields {
                    time: humantime::format_rfc3339_millis(now).to_string(),
                    level: name(self.level),
                    pid: self.pid,
                    remote: self.remote,
                    message: &message,
                };
                // Numbers and text can always be encoded.
                let json = serde_json::to_string(&fields).unwrap_or_default();
                format!("{priority}{tag}{json}\n")
            }
        }
    }

    /// The journal shows the program and its first process by itself.
    fn prefix(&self, style: Style) -> String {
        match (self.voice, style.journal) {
            _ if style.syslog => format!("cascade[{}]: ", self.pid),
            (Voice::Log, None) => format!("cascade[{}]: ", self.pid),
            (Voice::Error, None) => "cascade: ".into(),
            (Voice::Log | Voice::Error, Some(known)) if known != self.pid => {
                format!("[{}] ", self.pid)
            }
            _ => String::new(),
        }
    }

    /// The number of syslog(3), in angle brackets; sd-daemon(3) has the same, of no facility.
    fn priority(&self, facility: u8) -> String {
        let number = match self.level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        };
        format!("<{}>", facility + number)
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    }
}

/// Whether the variable `JOURNAL_STREAM` means this file, by its device and inode: systemd sets it, and whoever diverts
/// standard error from the journal leaves it as it was.
pub(super) fn is_journal(variable: &str, device: u64, inode: u64) -> bool {
    variable
        .split_once(':')
        .is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn rendered(voice: Voice, format: Format, journal: Option<u32>) -> String {
        let line = Line {
            level: Level::Warn,
            voice,
            pid: 7,
            remote: Some(([192, 0, 2, 1], 80).into()),
            message: "two\nlines \x1b[2J".into(),
        };
        let now = UNIX_EPOCH + Duration::from_millis(1_764_061_445_678);
        let style = Style {
            format,
            journal,
            syslog: false,
        };
        line.render(style, now)
    }

    #[test]
    fn text_is_one_line_that_obeys_nobody() {
        for (voice, line) in [
            (Voice::Log, "cascade[7]: two\\nlines \\u{1b}[2J\n"),
            (Voice::Error, "cascade: two\\nlines \\u{1b}[2J\n"),
            (Voice::Plain, "two\\nlines \\u{1b}[2J\n"),
        ] {
            assert_eq!(rendered(voice, Format::Text, None), line);
        }
    }

    #[test]
    fn json_has_the_fields_of_the_manual() {
        let line = r#"{"time":"2025-11-25T09:04:05.678Z","level":"warn","pid":7,"remote":"192.0.2.1:80","message":"two\\nlines \\u{1b}[2J"}"#;
        for voice in [Voice::Log, Voice::Error, Voice::Plain] {
            assert_eq!(rendered(voice, Format::Json, None), format!("{line}\n"));
            assert_eq!(
                rendered(voice, Format::Json, Some(7)),
                format!("<4>{line}\n")
            );
        }
    }

    #[test]
    fn the_journal_is_told_the_priority_and_nothing_that_it_knows() {
        let of = |journal| rendered(Voice::Log, Format::Text, Some(journal));
        assert_eq!(of(7), "<4>two\\nlines \\u{1b}[2J\n");
        assert_eq!(of(1), "<4>[7] two\\nlines \\u{1b}[2J\n");
    }

    #[test]
    fn syslog_is_told_the_facility_and_who_speaks() {
        let line = Line {
            level: Level::Info,
            voice: Voice::Error,
            pid: 7,
            remote: None,
            message: "x".into(),
        };
        let of = |format| {
            let style = Style {
                format,
                journal: Some(7),
                syslog: true,
            };
            line.render(style, UNIX_EPOCH)
        };
        assert_eq!(of(Format::Text), "<30>cascade[7]: x\n");
        assert!(of(Format::Json).starts_with("<30>cascade[7]: {\"time\":"));
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        assert!(is_journal("8:1234", 8, 1234));
        for other in ["8:1235", "9:1234", "", ":", "8", "8:1234:", "8:"] {
            assert!(!is_journal(other, 8, 1234), "{other:?}");
        }
    }
}
