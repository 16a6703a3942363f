//! What a worker asks of its peer, and on which connection.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::{Connection, GiveUp, ReasonKind, Sent, Worker, WorkerOrder, WorkerReport};
use crate::download::plan::Failure;
use crate::download::reason::Reason;
use crate::download::response::Incoming;
use crate::net::connect;
use crate::wire::peer::{Extension, Request};

/// How long a connect may wait (PROTOCOL §4: no failure before 10 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(12);
/// So many bytes of requests are sent together: as many as a server of our kind reads at once.
const TOGETHER: usize = 4096;

impl Worker<'_> {
    /// Sends as many requests as the peer's habits allow.
    pub(super) fn send_requests(&mut self) -> Result<(), GiveUp> {
        self.skip_present_blocks()?;
        if self.sent.is_empty() {
            // What a peer says that owes nothing is the end of the connection (see `wait_for_orders`).
            self.connection
                .take_if(|connection| connection.incoming.has_more());
        }
        while let Some(order) = self.waiting.front().copied() {
            let (requests, responses) = self.connection.as_ref().map_or((0, 0), |connection| {
                (connection.requests, connection.responses)
            });
            let outstanding = self.sent.len() as u32;
            if self.connection.is_some() && outstanding == 0 && self.habits.is_used_up(requests) {
                self.connection = None;
                continue;
            }
            if outstanding >= self.habits.window(requests, responses) {
                break;
            }
            self.add_request(order)?;
            // Who reads a request with one recv(2) must find it alone.
            if !self.habits.is_extended() || self.unsent.len() >= TOGETHER {
                self.write_requests()?;
            }
        }
        self.write_requests()
    }

    /// Another worker may have fetched a block meanwhile. A map is wanted all the same.
    fn skip_present_blocks(&mut self) -> Result<(), GiveUp> {
        while let Some(order) = self
            .waiting
            .front()
            .filter(|order| !order.map && self.to.present.get(order.block))
        {
            self.report(WorkerReport::Skipped(order.block))?;
            self.waiting.pop_front();
        }
        Ok(())
    }

    fn add_request(&mut self, order: WorkerOrder) -> Result<(), GiveUp> {
        let extended = order.map && self.habits.may_extend();
        let request = Request {
            hash: self.to.hash,
            block: order.block.into(),
            extension: extended.then_some(Extension::Map),
        };
        if self.connection.is_none() {
            self.connection = Some(self.connect()?);
        }
        let Some(connection) = self.connection.as_mut() else {
            return Ok(());
        };
        let alone_since = self.sent.is_empty().then(Instant::now);
        if let Some(now) = alone_since {
            connection.last_heard = now;
            self.meter.drained(now);
        }
        self.unsent.extend_from_slice(&request.encode());
        connection.requests += 1;
        self.waiting.pop_front();
        self.sent.push_back(Sent {
            order,
            extended,
            alone_since,
        });
        Ok(())
    }

    /// Never writes a part of a request: the socket has room for all that may be outstanding.
    fn write_requests(&mut self) -> Result<(), GiveUp> {
        let Some(connection) = self.connection.as_ref().filter(|_| !self.unsent.is_empty()) else {
            return Ok(());
        };
        let written = (&connection.stream).write_all(&self.unsent);
        self.unsent.clear();
        match written {
            Ok(()) => Ok(()),
            // Whatever the peer had sent before it closed is read all the same.
            Err(error) if is_close(&error) && self.sent.len() > 1 => Ok(()),
            Err(_) => self.connection_ended(false),
        }
    }

    /// What the system receives ahead is not limited: with a download limit it must not be more than is under way at this
    /// rate, and a little.
    pub(super) fn limit_ahead(&self, stream: &TcpStream) -> io::Result<()> {
        let Some(limit) = self.to.limit else {
            return Ok(());
        };
        let under_way = limit.rate() as f64 * self.meter.round_trip().as_secs_f64();
        let ahead = (limit.rate().div_ceil(8) + under_way as u64).clamp(32 << 10, 4 << 20);
        setsockopt(stream, sockopt::RcvBuf, &(ahead as usize))?;
        Ok(())
    }

    fn connect(&mut self) -> Result<Connection, GiveUp> {
        if let Some(connects) = &mut self.unanswered {
            // It may be no peer at all, and wants none of this.
            if *connects >= self.to.connects {
                return Err(GiveUp(Failure::Silent, Reason::new(ReasonKind::Closes, 0)));
            }
            *connects += 1;
        }
        let begin = || {
            let connected = connect::to_first(self.to.addresses, CONNECT_TIMEOUT);
            let (stream, _) =
                connected.map_err(|tried| io::Error::from_raw_os_error(tried.errno()))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            self.limit_ahead(&stream)?;
            Ok(stream)
        };
        let stream = begin().map_err(|error: io::Error| {
            let code = error.raw_os_error().unwrap_or(libc::ETIMEDOUT);
            GiveUp(
                Failure::Unreachable,
                Reason {
                    kind: ReasonKind::Errno,
                    number: 0,
                    code,
                },
            )
        })?;
        Ok(Connection {
            stream,
            requests: 0,
            responses: 0,
            announced: None,
            incoming: Incoming::default(),
            last_heard: Instant::now(),
        })
    }
}

fn is_close(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
