//! Echo: every line comes back. CS:APP's service, for trying out the models.
//!
//! A line is echoed when it is complete, or has filled the buffer; what is left at the end of input is echoed as it is.
//! So neither reply nor log depends on how the input was split, and a session's memory is bounded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::SystemTime;

use log::Level;

use super::{Next, Outcome, Output, Reports, Service, Session};
use crate::logging;
use crate::net::resolve;
use crate::sys::fork;
use crate::sys::pipe::{Received, Receiver, Record, Sender, lossy_packet_pipe};
use crate::sys::poll::wait_readable;
use crate::text;

/// Longer lines are echoed, and logged, in parts of this length.
pub const MAX_LINE: usize = 8192;

/// Echoes lines.
#[derive(Debug)]
pub struct EchoService {
    log: Log,
}

/// What is logged about a connection.
#[derive(Debug)]
enum Log {
    /// Nothing.
    Quiet,
    /// Its address.
    Address,
    /// Its host name as well, which a separate process looks up: that may take as long as the name server likes, and
    /// needs files and sockets that the server does not.
    Name(Sender<Remote>),
}

/// Who has connected.
#[derive(Debug)]
struct Remote(SocketAddr);

impl Record for Remote {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.0.to_string().as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok()?.parse().ok().map(Self)
    }
}

impl EchoService {
    /// An echo that logs nothing.
    pub fn quiet() -> Self {
        Self { log: Log::Quiet }
    }

    /// An echo service that logs connections and input, at level debug.
    pub fn verbose() -> Self {
        Self { log: Log::Address }
    }

    /// As [`EchoService::verbose`], with the host name of the address, which is logged once it is known. One process
    /// for all connections looks them up; it first runs `begin`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn naming(begin: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let (sender, receiver) = lossy_packet_pipe()?;
        fork::spawn_leaf(&[receiver.as_fd()], || match begin() {
            Ok(()) => log_names(&receiver),
            Err(error) => {
                logging::complain(&error);
                1
            }
        })?;
        let log = Log::Name(sender);
        Ok(Self { log })
    }

    /// Logs who connects.
    fn log(&self, remote: SocketAddr) {
        match &self.log {
            Log::Quiet => {}
            Log::Address => log_address(remote),
            // Where many wait for their names already, the address must do.
            Log::Name(names) => {
                if names.send(&Remote(remote)).is_err() {
                    log_address(remote);
                }
            }
        }
    }
}

/// The process that looks up names; it ends when nobody is left to ask.
fn log_names(remotes: &Receiver<Remote>) -> u8 {
    loop {
        match remotes.receive() {
            Ok(Received::Record(Remote(remote))) => log_name(remote),
            Ok(Received::Garbage) => {}
            Ok(Received::Empty) => {
                if wait_readable(&[Some(remotes.as_fd())], None).is_err() {
                    return 1;
                }
            }
            Ok(Received::Closed) => return 0,
            Err(_) => return 1,
        }
    }
}

fn log_address(remote: SocketAddr) {
    let line = format_args!("connected to ({}, {})", remote.ip(), remote.port());
    logging::about(remote, Level::Debug, line);
}

fn log_name(remote: SocketAddr) {
    match resolve::name_of(remote) {
        // A name server is a stranger, too.
        Some(name) => {
            let name = text::escape(name.as_bytes());
            let line = format_args!("connected to ({}, {}), {name}", remote.ip(), remote.port());
            logging::about(remote, Level::Debug, line);
        }
        None => log_address(remote),
    }
}

impl Service for EchoService {
    type Session = EchoSession;
    const REPORTS: Reports = Reports::Never;

    #[inline(always)]
    fn open(&self, remote: SocketAddr, _now: SystemTime) -> EchoSession {
        if !matches!(self.log, Log::Quiet) {
            self.log(remote);
        }
        EchoSession { line: Vec::new() }
    }

    fn apply(&self, _remote: SocketAddr, report: Infallible, _now: SystemTime) {
        match report {}
    }

    fn descriptors(&self) -> Vec<RawFd> {
        match &self.log {
            Log::Name(names) => vec![names.as_fd().as_raw_fd()],
            Log::Quiet | Log::Address => Vec::new(),
        }
    }
}

/// A connection that gets back what it sends.
#[derive(Debug)]
pub struct EchoSession {
    /// The part of an incomplete line that has arrived: less than [`MAX_LINE`].
    line: Vec<u8>,
}

impl Session for EchoSession {
    type Report = Infallible;

    #[inline(always)]
    fn receive(&mut self, input: &[u8], output: &mut Output, _: &mut Vec<Infallible>) -> Next {
        if input.is_empty() {
            self.echo(output);
            return Next::Close(Outcome::Done);
        }
        for part in input.split_inclusive(|byte| *byte == b'\n') {
            self.take(part, output);
        }
        Next::Read
    }

    #[inline(always)]
    fn is_idle(&self) -> bool {
        self.line.is_empty()
    }
}

impl EchoSession {
    /// Takes a line or a part of one.
    #[inline(always)]
    fn take(&mut self, mut part: &[u8], output: &mut Output) {
        while !part.is_empty() {
            let room = MAX_LINE - self.line.len();
            let (now, later) = part.split_at(part.len().min(room));
            part = later;
            let complete = now.len() == room || now.ends_with(b"\n");
            if complete && self.line.is_empty() {
                // What arrives in one piece is not copied first.
                echo(now, output);
                continue;
            }
            self.line.extend_from_slice(now);
            if complete {
                self.echo(output);
            }
        }
    }

    #[inline(always)]
    fn echo(&mut self, output: &mut Output) {
        if !self.line.is_empty() {
            echo(&self.line, output);
            self.line.clear();
        }
    }
}

#[inline(always)]
fn echo(line: &[u8], output: &mut Output) {
    log::debug!("server received {} bytes", line.len());
    output.push_bytes(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Chunk;

    /// What comes back when the input is cut into parts of this length.
    fn echoed(input: &[u8], cut: usize) -> Vec<u8> {
        let mut session = EchoSession { line: Vec::new() };
        let (mut output, mut reply) = (Output::default(), Vec::new());
        let mut collect = |output: &mut Output| {
            for chunk in output.drain() {
                let Chunk::Bytes { bytes, .. } = chunk else {
                    panic!("an echo has no files");
                };
                reply.extend(bytes);
            }
        };
        for part in input.chunks(cut) {
            let next = session.receive(part, &mut output, &mut Vec::new());
            assert_eq!(next, Next::Read);
            assert!(session.line.len() < MAX_LINE, "its memory is bounded");
            collect(&mut output);
        }
        let end = session.receive(&[], &mut output, &mut Vec::new());
        assert_eq!(end, Next::Close(Outcome::Done));
        collect(&mut output);
        reply
    }

    #[test]
    fn the_echo_is_the_input_however_it_was_cut() {
        let mut long = vec![b'x'; 2 * MAX_LINE + 17];
        long[MAX_LINE] = b'\n';
        let inputs: [&[u8]; 6] = [
            b"",
            b"\n",
            b"a\nbc\n",
            b"no newline",
            b"\0\xff\n\r\n\x80",
            &long,
        ];
        for input in inputs {
            for cut in [1, 2, 3, 7, MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 1 << 20] {
                assert!(echoed(input, cut) == input, "cut to {cut}");
            }
        }
    }

    #[test]
    fn a_line_comes_back_only_when_it_is_complete() {
        let mut session = EchoSession { line: Vec::new() };
        let mut output = Output::default();
        session.receive(b"half", &mut output, &mut Vec::new());
        assert!(output.is_empty() && !session.is_idle());
        session.receive(b" and half\n", &mut output, &mut Vec::new());
        assert!(!output.is_empty() && session.is_idle());
    }
}
