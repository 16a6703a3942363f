//! A worker: a process that fetches blocks from one peer.
//!
//! It takes orders from one pipe and reports through another. It receives a block, hashes it, writes it with
//! pwrite(2), and only then says so, of small blocks many at once ([`Landing`]); only the downloader marks it present. How the peer treats connections it finds
//! out by itself ([`Habits`]): a connection that the peer closed is no failure, and no order is lost by it.

mod answers;
pub mod path;
mod requests;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::habits::Habits;
use super::landing::Landing;
use super::plan::{Failure, WorkerId};
use super::progress::{Figure, Progress};
use super::reason::{Reason, ReasonKind};
use super::report::{GiveUp, MAX_FETCHED, Report, WorkerOrder, WorkerReport};
use super::response::{Incoming, Step};
use crate::cascade_file::CascadeFile;
use crate::faults;
use crate::hash::CascadeHash;
use crate::net::bucket::{Allowance, Bucket};
use crate::store::bitmap::Bitmap;
use crate::sys::letters::Sender;
use crate::sys::poll::wait_readable;
use crate::sys::socket;

/// How long a peer that owes an answer may send nothing.
const SILENCE: Duration = Duration::from_secs(20);
/// What is reserved of a download limit at most at once.
const PORTION: u64 = 256 << 10;

/// Everything that a worker needs; most of it is inherited through the fork.
#[derive(Debug)]
pub struct Assignment<'a> {
    /// Its number.
    pub id: WorkerId,
    /// The addresses of the peer, to be tried in this order.
    pub addresses: &'a [SocketAddr],
    /// The file.
    pub hash: CascadeHash,
    /// Its block hashes.
    pub cascade: &'a CascadeFile,
    /// The data file, open for writing.
    pub data: &'a File,
    /// Which blocks are there already.
    pub present: &'a Bitmap,
    /// Where to put the peer's map, for the downloader to see.
    pub map: &'a Bitmap,
    /// Where to count bytes.
    pub progress: &'a Progress,
    /// How many bytes may be received per second, over all workers.
    pub limit: Option<&'a Bucket>,
    /// Where to report.
    pub reports: &'a Sender<Report>,
    /// Where orders come from; its end is the end of the worker.
    pub orders: &'a File,
    /// How often it may connect before the peer has answered.
    pub connects: u32,
}

/// Works until the orders end or the peer is of no more use; answers the exit status.
pub fn run(assignment: &Assignment<'_>) -> u8 {
    faults::at("worker");
    let mut worker = Worker {
        to: assignment,
        connection: None,
        waiting: VecDeque::new(),
        sent: VecDeque::new(),
        habits: Habits::default(),
        allowance: Allowance::default(),
        partial_order: Vec::new(),
        unsent: Vec::new(),
        landing: Landing::new(assignment.cascade, assignment.data),
        meter: path::Meter::new(Instant::now()),
        unanswered: Some(0),
        fetched: false,
    };
    // What has landed is right, whatever came after it.
    match worker
        .work()
        .or_else(|error| worker.report_landed().and(Err(error)))
    {
        Ok(()) => 0,
        Err(GiveUp(failure, reason)) => {
            // If the downloader is gone, nobody is left to tell.
            let _ = worker.report(WorkerReport::Failed(failure, reason));
            0
        }
    }
}

struct Worker<'a> {
    to: &'a Assignment<'a>,
    connection: Option<Connection>,
    /// Orders that were not sent.
    waiting: VecDeque<WorkerOrder>,
    /// Requests that were sent and not answered, in order.
    sent: VecDeque<Sent>,
    habits: Habits,
    /// The part of the download limit that it may use.
    allowance: Allowance,
    partial_order: Vec<u8>,
    /// Requests that are sent together.
    unsent: Vec<u8>,
    /// Blocks that were received.
    landing: Landing<'a>,
    /// The path to the peer.
    meter: path::Meter,
    /// How often it has connected, while the peer has not answered.
    unanswered: Option<u32>,
    /// Whether a block was received.
    fetched: bool,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    order: WorkerOrder,
    /// The request asked for the map.
    extended: bool,
    /// When it was sent, if no other was outstanding then.
    alone_since: Option<Instant>,
}

struct Connection {
    stream: TcpStream,
    requests: u32,
    responses: u32,
    /// The length that the last header announced.
    announced: Option<u64>,
    incoming: Incoming,
    /// When the peer last sent something that it owed, or began to owe something.
    last_heard: Instant,
}

/// Whether the worker goes on.
enum Orders {
    Open,
    Ended,
}

impl Worker<'_> {
    fn work(&mut self) -> Result<(), GiveUp> {
        loop {
            // What has arrived comes first: then there are orders, and requests, to be taken and sent together.
            if !self.has_answers() {
                if let Orders::Ended = self.take_orders()? {
                    return self.report_landed();
                }
                if self.waiting.is_empty() && self.sent.is_empty() {
                    self.wait_for_orders()?;
                    continue;
                }
                self.send_requests()?;
            }
            if !self.sent.is_empty() {
                self.receive().or_else(|error| self.forgive(error))?;
            }
        }
    }

    /// Whether answers were received that are still to be looked at.
    fn has_answers(&self) -> bool {
        let connection = self.connection.as_ref();
        !self.sent.is_empty() && connection.is_some_and(|connection| connection.incoming.has_more())
    }

    /// Reports the blocks that have landed, in the order of the answers before any other report.
    fn report_landed(&mut self) -> Result<(), GiveUp> {
        let landed = self.landing.take_landed()?;
        for blocks in landed.chunks(MAX_FETCHED) {
            self.send_report(WorkerReport::Fetched(blocks.to_vec()))?;
        }
        Ok(())
    }

    fn report(&mut self, report: WorkerReport) -> Result<(), GiveUp> {
        self.report_landed()?;
        self.send_report(report)
    }

    fn send_report(&self, report: WorkerReport) -> Result<(), GiveUp> {
        let report = Report::Worker(self.to.id, report);
        self.to.reports.send(&report).map_err(ours)
    }

    /// Takes the orders that wait in the pipe.
    fn take_orders(&mut self) -> Result<Orders, GiveUp> {
        let mut bytes = [0; 256 * WorkerOrder::LEN];
        let mut pipe = self.to.orders;
        match pipe.read(&mut bytes) {
            Ok(0) => return Ok(Orders::Ended),
            Ok(n) => self.partial_order.extend_from_slice(&bytes[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(ours(error)),
        }
        let arrived = std::mem::take(&mut self.partial_order);
        let (orders, rest) = arrived.as_chunks::<{ WorkerOrder::LEN }>();
        self.waiting
            .extend(orders.iter().map(|bytes| WorkerOrder::decode(*bytes)));
        self.partial_order = rest.to_vec();
        Ok(Orders::Open)
    }

    /// Nothing to do: waits for an order. A connection that becomes readable meanwhile is over: the peer closed it,
    /// or says something that nobody asked (some answer the end of an idle connection with a message).
    fn wait_for_orders(&mut self) -> Result<(), GiveUp> {
        self.report_landed()?;
        let stream = self
            .connection
            .as_ref()
            .map(|connection| connection.stream.as_fd());
        let ready = wait_readable(&[Some(self.to.orders.as_fd()), stream], None).map_err(ours)?;
        if ready[1] {
            self.connection = None;
        }
        Ok(())
    }

    /// Reads what has arrived; waits for it, or for an order, where nothing has.
    fn receive(&mut self) -> Result<(), GiveUp> {
        let most = match self
            .to
            .limit
            .map(|bucket| self.allowance.take(bucket, PORTION))
        {
            None => u64::MAX,
            Some(Ok(most)) => most,
            Some(Err(until)) => return self.pause(until),
        };
        let Some(connection) = self.connection.as_mut() else {
            return Ok(());
        };
        let step = connection
            .incoming
            .read(&connection.stream, &mut self.landing, most)?;
        self.allowance.moved(connection.incoming.last_read());
        if !matches!(step, Step::Wait | Step::Closed(_)) {
            let now = Instant::now();
            connection.last_heard = now;
            let bytes = connection.incoming.last_read();
            let kernel = || socket::round_trip(&connection.stream).ok();
            self.meter.received(bytes, now, kernel);
            self.to
                .progress
                .add(Figure::Received, connection.incoming.take_count());
        }
        if let Some(path) = self.meter.news() {
            if let Some(connection) = self.connection.as_ref() {
                // With less room it is slower, and that is all.
                let _ = self.limit_ahead(&connection.stream);
            }
            self.send_report(WorkerReport::Path(path))?;
        }
        match step {
            Step::Wait => self.wait_for_bytes(),
            Step::More => Ok(()),
            Step::Closed(within_response) => self.connection_ended(within_response),
            Step::Header(header) => self.header(header),
            Step::Block => {
                self.fetched = true;
                self.answered();
                let coming = self.sent.len() + self.waiting.len();
                if self.landing.is_due(coming) {
                    self.report_landed()?;
                }
                Ok(())
            }
            Step::Map(map) => {
                self.to.map.assign(&map);
                self.report_answer(WorkerReport::Map)
            }
            Step::Message => self.report_answer(WorkerReport::Absent),
        }
    }

    /// The download limit is used up until then. Orders are taken meanwhile; the peer is not to blame for the silence.
    fn pause(&mut self, until: Instant) -> Result<(), GiveUp> {
        self.report_landed()?;
        let left = until.saturating_duration_since(Instant::now());
        wait_readable(&[Some(self.to.orders.as_fd())], Some(left)).map_err(ours)?;
        if let Some(connection) = self.connection.as_mut() {
            connection.last_heard = Instant::now();
        }
        Ok(())
    }

    fn wait_for_bytes(&mut self) -> Result<(), GiveUp> {
        self.report_landed()?;
        let Some(connection) = self.connection.as_ref() else {
            return Ok(());
        };
        let silent = connection.last_heard.elapsed();
        if silent >= SILENCE {
            return self.silent();
        }
        let fds = [
            Some(connection.stream.as_fd()),
            Some(self.to.orders.as_fd()),
        ];
        wait_readable(&fds, Some(SILENCE - silent)).map_err(ours)?;
        Ok(())
    }

    /// The response to the oldest request is complete.
    fn answered(&mut self) -> Option<Sent> {
        if let Some(connection) = self.connection.as_mut() {
            connection.responses += 1;
        }
        self.habits.answered();
        faults::at("fetched");
        self.sent.pop_front()
    }

    fn report_answer(&mut self, report: fn(u32) -> WorkerReport) -> Result<(), GiveUp> {
        match self.answered() {
            Some(sent) => self.report(report(sent.order.block)),
            None => Ok(()),
        }
    }
}

fn ours(error: io::Error) -> GiveUp {
    GiveUp(Failure::of_ours(&error), Reason::errno(&error))
}
