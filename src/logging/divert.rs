//! The log, kept away from a terminal on which another process draws bars.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{OnceLock, RwLock};

use crate::sys::fork;

/// Where lines go instead of standard error, in this process and in the children forked meanwhile: while there are
/// progress bars on the terminal, only the process that draws them may write there.
static DIVERTED: RwLock<Option<UnixStream>> = RwLock::new(None);

/// The socket of syslog(3), where standard error is no place for a log; nothing where there is none.
static SYSLOG: OnceLock<Option<UnixDatagram>> = OnceLock::new();

/// Writes to syslog(3) from now on, as far as there is one.
pub(super) fn to_syslog() {
    const SYSLOGD: &str = "/dev/log";
    let connected = || {
        let socket = UnixDatagram::unbound().ok()?;
        // A line that finds no room gets lost: no client waits for it.
        socket.set_nonblocking(true).ok()?;
        socket.connect(SYSLOGD).ok()?;
        fork::always_keep(Some(socket.as_fd()));
        Some(socket)
    };
    SYSLOG.get_or_init(connected);
}

/// Whether lines go to syslog(3), if anywhere.
pub(super) fn goes_to_syslog() -> bool {
    SYSLOG.get().is_some()
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

/// Writes whole lines with a single write, to standard error or to where it is diverted, so that the lines of many
/// processes do not mix.
pub(super) fn write(lines: &str) {
    // A log that cannot be written is no reason to end.
    if let Some(syslog) = SYSLOG.get() {
        let line = lines.trim_end().as_bytes();
        let _ = syslog.as_ref().map(|syslog| syslog.send(line));
        return;
    }
    let _ = match DIVERTED.read().as_deref() {
        Ok(Some(diverted)) => (&mut &*diverted).write_all(lines.as_bytes()),
        _ => io::stderr().lock().write_all(lines.as_bytes()),
    };
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
        self.take()
            .iter()
            .for_each(|line| write(&format!("{line}\n")));
    }
}
