//! Sessions: the protocol logic of a connection, without I/O.
//!
//! A [`Session`] is a state machine for one connection: bytes in; bytes, file ranges and reports out. It knows no
//! socket, clock or process. Each server model in [`crate::server`] drives it in its own way, and the code that is
//! tested without a socket is the code that runs in production.
//!
//! A [`Service`] is what all connections have in common. With a process per connection its sessions live in children,
//! which have a snapshot of the state as of their fork and see what lies in shared memory; only the owner of the state
//! applies reports. Where sessions live in the owner's process, in threads or in its loop, reports are applied at once,
//! one at a time.
//!
//! Trying a session takes no setup:
//!
//! ```
//! use std::time::SystemTime;
//!
//! use cascade::service::echo::EchoService;
//! use cascade::service::{Chunk, Next, Outcome, Output, Service, Session};
//!
//! let remote = ([192, 0, 2, 1], 40_000).into();
//! let mut session = EchoService::quiet().open(remote, SystemTime::now());
//! let (mut output, mut reports) = (Output::default(), Vec::new());
//!
//! assert_eq!(session.receive(b"a li", &mut output, &mut reports), Next::Read);
//! assert!(output.is_empty() && !session.is_idle());
//! assert_eq!(session.receive(b"ne\n", &mut output, &mut reports), Next::Read);
//! let Some(Chunk::Bytes { bytes, .. }) = output.drain().next() else { panic!("a line") };
//! assert_eq!(bytes.as_slice(), b"a line\n");
//! // The end of input.
//! assert_eq!(session.receive(b"", &mut output, &mut reports), Next::Close(Outcome::Done));
//! ```

pub mod blocks;
pub mod echo;
pub mod tracker;

use std::collections::VecDeque;
use std::fs::File;
use std::hint::black_box;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use smallvec::SmallVec;

use crate::sys::record::Record;

/// One connection's side of a protocol.
pub trait Session {
    /// What must outlive the connection: its effects on the service's state.
    type Report: Record;

    /// Processes input (empty: the end of input), appends the reply to `output`, and says what to do next.
    ///
    /// The reply does not depend on how the input was split. Reports take effect before the reply is sent.
    fn receive(
        &mut self,
        input: &[u8],
        output: &mut Output,
        reports: &mut Vec<Self::Report>,
    ) -> Next;

    /// Whether no partial request is buffered, so that the connection may be closed without loss.
    fn is_idle(&self) -> bool;

    /// A file of the reply could not be read there, for which the client is not to blame.
    fn file_failed(&mut self, _file: &Arc<File>, _offset: u64, _errno: i32) {}
}

/// What a server does on all of its connections. Threads share it.
pub trait Service: Sync {
    /// The state of one connection.
    type Session: Session;

    /// Starts a session with `remote`, which connected at `now`.
    fn open(&self, remote: SocketAddr, now: SystemTime) -> Self::Session;

    /// Applies what a session with `remote` reported. Called only where the state is owned, and never while another
    /// `apply` or a `tick` runs. The report is not believed beyond what can be checked here.
    fn apply(
        &self,
        remote: SocketAddr,
        report: <Self::Session as Session>::Report,
        now: SystemTime,
    );

    /// How often a session may report.
    const REPORTS: Reports = Reports::Once;

    /// Runs periodic work that is due, in the owner of the state; long work runs where `apart` says. Returns how soon
    /// it must be called again.
    fn tick(&self, _now: SystemTime, _apart: Apart) -> Duration {
        Duration::from_secs(3600)
    }

    /// Called for a child that has ended and served no connection. Returns whether `tick` had started it; `well` says
    /// whether it exited with status 0.
    fn child_ended(&self, _pid: nix::unistd::Pid, _well: bool) -> bool {
        false
    }

    /// Reloads the configuration; a broken one is logged, and nothing changes. Returns whether new sessions see another
    /// state, and need other descriptors.
    fn reload(&self) -> bool {
        false
    }

    /// Lines for a status block, beyond the counts of connections.
    fn status(&self) -> Vec<String> {
        Vec::new()
    }

    /// The message to a client that cannot be served now; empty where the protocol has none, and closing has to
    /// suffice.
    fn regret(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The descriptors that sessions need; children close all others. They stay open until [`Service::reload`] says
    /// that they have changed.
    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }
}

/// How often a session may report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reports {
    /// Never: nothing outlives a connection.
    Never,
    /// At most once.
    Once,
    /// Without limit.
    Often,
}

/// Where the owner of the state runs work that would delay its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apart {
    /// In a child, as the process is single-threaded.
    InChild,
    /// In a thread, as the process may have threads and so never forks.
    InThread,
}

/// What a driver does once the output was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Read more input. A driver does not read while output is pending.
    Read,
    /// Close the connection.
    Close(Outcome),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Normally, as the protocol specifies.
    Done,
    /// The request was understood and refused.
    Refused,
    /// The client took too long.
    TimedOut,
    /// The request could not be understood.
    ProtocolError,
    /// The connection broke.
    Disconnected,
    /// The process that served it died of a signal or a panic.
    Crashed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] = [
        Self::Done,
        Self::Refused,
        Self::TimedOut,
        Self::ProtocolError,
        Self::Disconnected,
        Self::Crashed,
    ];

    /// The exit status by which a child tells its parent.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 10,
            Self::TimedOut => 11,
            Self::ProtocolError => 12,
            Self::Disconnected => 13,
            Self::Crashed => crate::sys::fork::PANICKED,
        }
    }

    /// The outcome that a child's exit status stands for.
    pub fn from_exit_status(status: i32) -> Self {
        Self::ALL
            .into_iter()
            .find(|outcome| i32::from(outcome.exit_status()) == status)
            .unwrap_or(Self::Crashed)
    }

    /// A few words for the log.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::TimedOut => "timed out",
            Self::ProtocolError => "protocol error",
            Self::Disconnected => "disconnected",
            Self::Crashed => "crashed",
        }
    }
}

/// Bytes to be sent. A short reply, as most are, is stored inline: the first allocation of a process that was just
/// forked costs it three pages.
pub type Bytes = SmallVec<[u8; FEW]>;

/// The most bytes that are stored inline.
const FEW: usize = 36;

/// A queue of output: bytes and file ranges.
///
/// It is as small as that a processor moves it without memcpy(3): see [`few`].
#[derive(Debug, Default)]
pub struct Output {
    /// The first chunk, without which there is none, and the next: a block is its header and a range of its file.
    /// That much needs no memory of its own either.
    first: Option<Chunk>,
    /// None where it was sent before those in `more`.
    second: Option<Chunk>,
    /// What most replies have no use for.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    /// All further chunks.
    rest: VecDeque<Chunk>,
    /// A spare buffer, reused for the next reply.
    spare: Vec<u8>,
}

const _: () = assert!(size_of::<Output>() <= 128);

/// Copies few bytes one by one: memcpy(3) is in another part of the program, which a process that was just forked would
/// have to map for it (see `crate::sys::call`). Without the black box the compiler would call it all the same.
#[inline(always)]
fn few(bytes: &[u8]) -> Bytes {
    let mut few = Bytes::new();
    for byte in bytes {
        few.push(black_box(*byte));
    }
    few
}

/// Buffers larger than this are not kept between replies.
const SPARE: usize = 8192;

/// A part of the output.
#[derive(Debug)]
pub enum Chunk {
    /// Bytes in memory; what was sent is removed from the front.
    Bytes {
        /// All of them.
        bytes: Bytes,
        /// How many were sent.
        sent: usize,
    },
    /// A range of a file, which a driver sends with sendfile(2).
    File {
        /// The file.
        file: Arc<File>,
        /// What is still to be sent of it.
        range: Range<u64>,
    },
}

impl Chunk {
    /// The number of bytes that are still to be sent.
    #[inline(always)]
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes { bytes, sent } => (bytes.len() - sent) as u64,
            Self::File { range, .. } => range.end - range.start,
        }
    }
}

impl Output {
    /// Appends bytes; adjacent byte chunks are sent in one write.
    #[inline(always)]
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        let late = self.more.as_mut().and_then(|more| more.rest.back_mut());
        let last = late.or(self.second.as_mut()).or(self.first.as_mut());
        if let Some(Chunk::Bytes { bytes: last, .. }) = last {
            last.extend_from_slice(bytes);
        } else {
            let memory = if bytes.len() <= FEW {
                few(bytes)
            } else {
                let spare = self.more.as_mut().map(|more| &mut more.spare);
                let mut memory = spare.map(std::mem::take).unwrap_or_default();
                memory.extend_from_slice(bytes);
                Bytes::from_vec(memory)
            };
            self.push(Chunk::Bytes {
                bytes: memory,
                sent: 0,
            });
        }
    }

    /// Appends a range of a file.
    pub fn push_file(&mut self, file: &Arc<File>, range: Range<u64>) {
        if !range.is_empty() {
            self.push(Chunk::File {
                file: Arc::clone(file),
                range,
            });
        }
    }

    #[inline(always)]
    fn push(&mut self, chunk: Chunk) {
        if self.first.is_none() {
            self.first = Some(chunk);
        } else if self.length() == 1 {
            self.second = Some(chunk);
        } else {
            self.more.get_or_insert_default().rest.push_back(chunk);
        }
    }

    /// The number of chunks.
    #[inline(always)]
    fn length(&self) -> usize {
        let rest = self.more.as_ref().map_or(0, |more| more.rest.len());
        usize::from(self.first.is_some()) + usize::from(self.second.is_some()) + rest
    }

    /// Whether all was sent.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The first chunk, and whether another follows.
    #[inline(always)]
    pub fn front(&mut self) -> Option<(&mut Chunk, bool)> {
        let more = self.length() > 1;
        self.first.as_mut().map(|chunk| (chunk, more))
    }

    /// Removes `n` sent bytes of the first chunk.
    #[inline(always)]
    pub fn sent(&mut self, n: usize) {
        let finished = match &mut self.first {
            None => return,
            Some(Chunk::Bytes { bytes, sent }) => {
                *sent += n;
                *sent >= bytes.len()
            }
            Some(Chunk::File { range, .. }) => {
                range.start += n as u64;
                range.is_empty()
            }
        };
        if finished {
            let rest = || self.more.as_mut()?.rest.pop_front();
            let next = self.second.take().or_else(rest);
            if let Some(Chunk::Bytes { bytes, .. }) = std::mem::replace(&mut self.first, next)
                && bytes.spilled()
                && bytes.capacity() <= SPARE
            {
                let mut spare = bytes.into_vec();
                spare.clear();
                self.more.get_or_insert_default().spare = spare;
            }
        }
    }

    /// Whether several responses are pending.
    #[inline(always)]
    pub fn is_long(&self) -> bool {
        self.length() > 3
    }

    /// All chunks, in order.
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        let rest = self.more.iter().flat_map(|more| &more.rest);
        self.first.iter().chain(&self.second).chain(rest)
    }

    /// Removes `n` sent bytes, from as many chunks as that takes.
    pub fn sent_of_all(&mut self, mut n: usize) {
        while let Some(first) = self.first.as_ref().filter(|_| n > 0) {
            let part = first.length().min(n as u64) as usize;
            n -= part;
            self.sent(part);
        }
    }

    /// Takes all chunks out, in order: for tests and tools that have no socket.
    pub fn drain(&mut self) -> impl Iterator<Item = Chunk> + '_ {
        let early = self.first.take().into_iter().chain(self.second.take());
        let rest = self.more.as_mut().map(|more| more.rest.drain(..));
        early.chain(rest.into_iter().flatten())
    }
}
