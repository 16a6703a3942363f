//! One connection: a session, its socket and its deadlines.
//!
//! [`Connection::advance`] reads and writes as much as is possible without blocking, and returns what it is waiting
//! for. A model that serves one connection at a time waits for just that ([`super::converse`]); one that multiplexes
//! many registers it with epoll.
//!
//! The functions are inlined into their driver. A child that was just forked takes a page fault for every part of the
//! program that it reaches, and one contiguous part costs less than ten scattered ones.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, Shutdown, shutdown};

use super::ledger::Ledger;
use super::limits::Limits;
use super::pace::Pace;
use super::together::{self, MSG_MORE};
use crate::faults;
use crate::service::{Chunk, Next, Outcome, Output, Session};
use crate::store::verify::is_of_device;
use crate::sys::socket::{read, send, set_unsent_limit};
use crate::sys::support::is_unsupported;

/// The largest single read, and so the most input that a session gets at once. It is small so that the buffer fits into
/// the page of stack that a child touches anyway, until a client has sent that much.
const LITTLE: usize = 512;
const MUCH: usize = 4096;
/// The most that one sendfile(2) call is asked to send.
const SEND_SIZE: u64 = 1 << 20;
/// How long a half-closed connection is drained, and how many bytes at most. Closing a socket with unread input would
/// reset the connection, and could destroy the reply while it is in flight.
const DRAIN_TIME: Duration = Duration::from_secs(1);
const DRAIN_SIZE: usize = 64 << 10;
/// Where the rate is limited, the most unsent data that the kernel buffers per socket (`TCP_NOTSENT_LOWAT`).
const UNSENT: u32 = 64 << 10;

/// How long a server that stops waits for the first request of a client that has just connected: it may be on its way.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Input.
    Read,
    /// Room for output.
    Write,
    /// The time only: it may continue when the deadline is reached.
    Pause,
    /// Nothing: the connection is finished.
    End(Outcome),
}

/// The deadline of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Relative to the moment when the wait begins. Most waits are short, and never need to read the clock.
    In(Duration),
    /// Absolute.
    At(Instant),
}

impl Until {
    /// Makes the deadline absolute, and returns it.
    pub fn settle(&mut self) -> Instant {
        let moment = match *self {
            Self::In(duration) => Instant::now() + duration,
            Self::At(moment) => moment,
        };
        *self = Self::At(moment);
        moment
    }

    /// The time that is left.
    #[inline(always)]
    pub fn left(self) -> Duration {
        match self {
            Self::In(duration) => duration,
            Self::At(moment) => moment.saturating_duration_since(Instant::now()),
        }
    }
}

/// A connection as its driver holds it: the socket may be owned or borrowed.
#[derive(Debug)]
pub struct Connection<'a, T, S> {
    pub(super) stream: T,
    session: S,
    limits: &'a Limits,
    ledger: &'a Ledger,
    output: Output,
    pace: Pace<'a>,
    phase: Phase,
    /// When the current phase times out.
    pub(super) until: Until,
    /// When the whole connection times out.
    end: Instant,
    /// Responses completed and bytes sent that are not in the ledger yet.
    responses: u64,
    sent: u64,
    /// Whether the send buffer is full, so that the driver has to wait for it.
    stalled: bool,
    /// Whether the receive buffer was emptied, so that another read would only return EAGAIN.
    dry: bool,
    /// Whether a read has filled the small buffer.
    sends_much: bool,
    /// Whether the client has closed its sending side.
    ended: bool,
    newcomer: Newcomer,
}

/// Whether the client has sent anything yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newcomer {
    /// It has.
    No,
    /// It has not.
    Yes,
    /// It has not, and has little time left for it: the server stops.
    Hurried,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Idle, between two requests.
    Idle,
    /// Receiving a request.
    Receiving,
    /// Sending pending output; then continues as `Next` says.
    Sending(Next),
    /// Half-closed: input is discarded, up to this many bytes.
    Draining(Outcome, usize),
}

impl<'a, T: AsFd, S: Session> Connection<'a, T, S> {
    /// Takes over a non-blocking socket whose client was accepted at `now`.
    #[inline(always)]
    pub fn new(
        stream: T,
        session: S,
        limits: &'a Limits,
        ledger: &'a Ledger,
        now: Instant,
    ) -> Self {
        faults::at("connection");
        let pace = Pace::new(limits);
        if pace.is_paced() {
            // Where the system does not know this, turns are less exact.
            let _ = set_unsent_limit(&stream, UNSENT);
        }
        Self {
            stream,
            session,
            limits,
            ledger,
            output: Output::default(),
            pace,
            phase: Phase::Idle,
            until: Until::In(limits.idle_timeout.min(limits.max_lifetime)),
            end: now + limits.max_lifetime,
            responses: 0,
            sent: 0,
            stalled: false,
            dry: false,
            sends_much: false,
            ended: false,
            newcomer: Newcomer::Yes,
        }
    }

    /// When the connection is given up, unless the client sends or accepts data before. The wait starts now, if it has
    /// not yet.
    pub fn deadline(&mut self) -> Instant {
        self.until.settle()
    }

    /// Whether no request or response is in progress.
    #[inline(always)]
    fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Whether a server that stops has no reason to wait for this connection: nothing is under way, and the client has
    /// sent its first request, for which it is left a moment.
    #[inline(never)]
    pub fn may_be_closed(&mut self) -> bool {
        if self.is_idle() && self.newcomer == Newcomer::Yes {
            let latest = Instant::now() + FIRST_REQUEST;
            self.until = Until::At(self.until.settle().min(latest));
            self.newcomer = Newcomer::Hurried;
        }
        self.is_idle() && self.newcomer == Newcomer::No
    }

    /// Reads and sends as much as possible without blocking. Each report of the session is passed to `report` before
    /// the reply to the same request is sent.
    #[inline]
    pub fn advance(&mut self, report: &mut impl FnMut(S::Report) -> io::Result<()>) -> Want {
        self.dry = false;
        loop {
            let step = match self.phase {
                Phase::Idle | Phase::Receiving => self.receive(report),
                Phase::Sending(next) => self.send(next),
                Phase::Draining(outcome, left) => self.drain(outcome, left),
            };
            match step {
                Ok(Some(want)) => return want,
                Ok(None) => {}
                Err(_) => return Want::End(Outcome::Disconnected),
            }
        }
    }

    /// Handles an expired deadline.
    pub fn timed_out(&self) -> Outcome {
        match self.phase {
            // A client that keeps its connection for a while and goes has done nothing wrong.
            Phase::Idle => Outcome::Done,
            Phase::Receiving | Phase::Sending(_) => Outcome::TimedOut,
            Phase::Draining(outcome, _) => outcome,
        }
    }

    #[inline(always)]
    fn receive(
        &mut self,
        report: &mut impl FnMut(S::Report) -> io::Result<()>,
    ) -> io::Result<Option<Want>> {
        if self.dry {
            Ok(Some(Want::Read))
        } else if self.sends_much {
            self.receive_much(report)
        } else {
            self.receive_into(&mut [MaybeUninit::uninit(); LITTLE], report)
        }
    }

    #[inline(never)]
    fn receive_much(
        &mut self,
        report: &mut impl FnMut(S::Report) -> io::Result<()>,
    ) -> io::Result<Option<Want>> {
        self.receive_into(&mut [MaybeUninit::uninit(); MUCH], report)
    }

    #[inline(always)]
    fn receive_into(
        &mut self,
        buffer: &mut [MaybeUninit<u8>],
        report: &mut impl FnMut(S::Report) -> io::Result<()>,
    ) -> io::Result<Option<Want>> {
        let most = buffer.len();
        let input = match read(self.stream.as_fd(), buffer) {
            Ok(input) => input,
            Err(Errno::EAGAIN) => return Ok(Some(Want::Read)),
            Err(Errno::EINTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        faults::asked(input);
        self.newcomer = Newcomer::No;
        self.ended = input.is_empty();
        self.dry = input.len() < most && !self.ended;
        self.sends_much |= input.len() == most;
        let mut reports = Vec::new();
        let next = self.session.receive(input, &mut self.output, &mut reports);
        reports.into_iter().try_for_each(report)?;
        if !self.output.is_empty() || next != Next::Read {
            self.phase = Phase::Sending(next);
            self.stalled = false;
        } else if self.phase == Phase::Idle && !self.session.is_idle() {
            // The deadline is that of the whole request, so it does not move with every byte.
            self.phase = Phase::Receiving;
            return Ok(self.allow(self.limits.request_timeout));
        }
        Ok(None)
    }

    #[inline(always)]
    fn send(&mut self, next: Next) -> io::Result<Option<Want>> {
        if self.output.is_long() && !self.pace.is_paced() {
            match together::send(&self.stream, &mut self.output) {
                Ok(Some(n)) => {
                    self.sent += n as u64;
                    self.stalled = false;
                    return Ok(None);
                }
                Ok(None) => {}
                Err(error) => return self.not_sent(error),
            }
        }
        let Some((chunk, more)) = self.output.front() else {
            return self.sent_all(next);
        };
        let (left, of_file) = (chunk.length(), matches!(chunk, Chunk::File { .. }));
        let count = match self.pace.take(left.min(SEND_SIZE), of_file) {
            Ok(count) => count as usize,
            Err(until) if until >= self.end => return Ok(Some(Want::End(Outcome::TimedOut))),
            Err(until) => {
                self.until = Until::At(until);
                self.stalled = false;
                return Ok(Some(Want::Pause));
            }
        };
        let sent = match chunk {
            Chunk::Bytes { bytes, sent } => {
                // With MSG_MORE the header of a response leaves together with its body.
                let flags = if more { MSG_MORE } else { MsgFlags::empty() };
                send(self.stream.as_fd(), &bytes[*sent..*sent + count], flags)
            }
            Chunk::File { file, range } => {
                let mut offset = i64::try_from(range.start).unwrap_or(i64::MAX);
                match sendfile64(&self.stream, &*file, Some(&mut offset), count) {
                    Err(error) if is_unsupported(error) => {
                        send_copied(self.stream.as_fd(), file, range.start, count)
                    }
                    sent => sent,
                }
            }
        };
        match sent {
            // The file was cut while it was being sent: only a close can tell the client.
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                self.output.sent(n);
                self.sent += n as u64;
                self.pace.moved(n);
                if of_file && n as u64 == left {
                    self.pace.pass();
                }
                self.stalled = false;
                Ok(None)
            }
            Err(error) => self.not_sent(error),
        }
    }

    #[inline(always)]
    fn not_sent(&mut self, error: Errno) -> io::Result<Option<Want>> {
        match error {
            Errno::EAGAIN => {
                // The deadline is that of the next byte.
                let over = if std::mem::replace(&mut self.stalled, true) {
                    None
                } else {
                    self.allow(self.limits.send_timeout)
                };
                Ok(over.or(Some(Want::Write)))
            }
            Errno::EINTR => Ok(None),
            error if is_of_device(&error.into()) => Ok(Some(self.file_failed(error))),
            error => Err(error.into()),
        }
    }

    /// What was to be sent of a file cannot be read.
    #[cold]
    fn file_failed(&mut self, error: Errno) -> Want {
        if let Some((Chunk::File { file, range }, _)) = self.output.front() {
            self.session.file_failed(file, range.start, error as i32);
        }
        Want::End(Outcome::Refused)
    }

    #[inline(always)]
    fn sent_all(&mut self, next: Next) -> io::Result<Option<Want>> {
        self.count_sent();
        self.responses += 1;
        match next {
            // The driver has its turn after each response, though the next request may be there already: a client
            // that asks without a pause keeps nobody else from being served, and no server from being stopped.
            Next::Read if self.session.is_idle() => {
                self.phase = Phase::Idle;
                let timeout = self.limits.idle_timeout.min(self.limits.max_lifetime);
                if self.responses > 1 {
                    return Ok(self.allow(timeout).or(Some(Want::Read)));
                }
                // Most clients ask once: for them nobody asks what time it is.
                self.until = Until::In(timeout);
                return Ok(Some(Want::Read));
            }
            Next::Read => {
                self.phase = Phase::Receiving;
                let over = self.allow(self.limits.request_timeout);
                return Ok(over.or(Some(Want::Read)));
            }
            // All was read: nothing can reset the connection on the way of the response.
            Next::Close(outcome) if self.ended => return Ok(Some(Want::End(outcome))),
            Next::Close(outcome) => self.close(outcome)?,
        }
        Ok(None)
    }

    /// Sets the phase's deadline to this long from now, bounded by that of the connection.
    fn allow(&mut self, timeout: Duration) -> Option<Want> {
        let now = Instant::now();
        self.until = Until::At((now + timeout).min(self.end));
        (now >= self.end).then(|| Want::End(self.timed_out()))
    }

    /// Enters what was sent in the ledger.
    #[inline(always)]
    pub fn count_sent(&mut self) {
        if self.sent > 0 {
            self.ledger.sent(std::mem::take(&mut self.sent));
        }
    }

    /// Half-closes the connection, so that buffered data still arrives and the client then sees the end of input.
    #[inline(always)]
    fn close(&mut self, outcome: Outcome) -> io::Result<()> {
        shutdown(self.stream.as_fd().as_raw_fd(), Shutdown::Write)?;
        self.phase = Phase::Draining(outcome, DRAIN_SIZE);
        self.until = Until::At(Instant::now() + DRAIN_TIME);
        Ok(())
    }

    #[inline(always)]
    fn drain(&mut self, outcome: Outcome, left: usize) -> io::Result<Option<Want>> {
        let mut buffer = [MaybeUninit::uninit(); LITTLE];
        match read(self.stream.as_fd(), &mut buffer) {
            Ok([]) => Ok(Some(Want::End(outcome))),
            Ok(input) if input.len() >= left => Ok(Some(Want::End(outcome))),
            Ok(input) => {
                self.phase = Phase::Draining(outcome, left - input.len());
                Ok(None)
            }
            Err(Errno::EAGAIN) => Ok(Some(Want::Read)),
            Err(Errno::EINTR) => Ok(None),
            // The client is gone; the response was sent.
            Err(_) => Ok(Some(Want::End(outcome))),
        }
    }
}

impl<T: AsFd, S> AsFd for Connection<'_, T, S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The peer address; an IPv4-mapped IPv6 address is converted to IPv4.
pub fn canonical(remote: SocketAddr) -> SocketAddr {
    SocketAddr::new(remote.ip().to_canonical(), remote.port())
}
/// Sends a part of a file that the kernel cannot send by itself, as that of some file systems in user space: at most as
/// much as is read at once.
#[cold]
fn send_copied(to: BorrowedFd<'_>, file: &File, offset: u64, count: usize) -> Result<usize, Errno> {
    let mut buffer = vec![0; count.min(1 << 16)];
    let read = file
        .read_at(&mut buffer, offset)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    match read {
        0 => Ok(0),
        read => send(to, &buffer[..read], MsgFlags::empty()),
    }
}
