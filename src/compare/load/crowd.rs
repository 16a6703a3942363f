//! All clients of a cell, driven by one thread with epoll.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::Sample;
use super::client::{BUFFER, Client, Progress};
use crate::compare::plan::Mode;
use crate::compare::traffic::Traffic;

/// How many events are taken at once.
const EVENTS: usize = 256;
/// How long a wait lasts at most, in milliseconds.
const TICK: u16 = 20;
/// How many connections may fail in a row before the server counts as gone.
const FAILURES: u64 = 10_000;
/// The longest latency that can be told apart from a longer one, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;

/// Clients of one kind.
#[derive(Debug)]
pub struct Crowd<'a> {
    server: SocketAddr,
    traffic: &'a Traffic,
    mode: Mode,
    epoll: Epoll,
    seats: Vec<Seat>,
    buffer: Vec<u8>,
    /// Connections made so far.
    connected: u64,
    failures_in_a_row: u64,
    /// Whether a client asks again when it was answered.
    keep_asking: bool,
    figures: Figures,
}

/// A client's place, which outlives its connections.
#[derive(Debug, Default)]
struct Seat {
    client: Option<Client>,
    answered: bool,
}

/// What is counted since the last look.
#[derive(Debug)]
struct Figures {
    requests: u64,
    connections: u64,
    errors: u64,
    latencies: Histogram<u64>,
}

impl Figures {
    fn new() -> io::Result<Self> {
        Ok(Self {
            requests: 0,
            connections: 0,
            errors: 0,
            latencies: Histogram::new_with_max(LONGEST, 2).map_err(io::Error::other)?,
        })
    }
}

impl<'a> Crowd<'a> {
    /// So many clients, none of which has connected yet.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new(
        server: SocketAddr,
        traffic: &'a Traffic,
        mode: Mode,
        clients: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            server,
            traffic,
            mode,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            seats: std::iter::repeat_with(Seat::default)
                .take(clients)
                .collect(),
            buffer: vec![0; BUFFER],
            connected: 0,
            failures_in_a_row: 0,
            keep_asking: false,
            figures: Figures::new()?,
        })
    }

    /// Clients that were answered at least once.
    pub fn served(&self) -> usize {
        self.seats.iter().filter(|seat| seat.answered).count()
    }

    /// Connects all clients, and lets them ask until each was answered once, or until nobody new was answered for
    /// `patience`; and for `at_least` so long. With `at_least` zero each client asks once only.
    ///
    /// # Errors
    /// Where sockets cannot be had.
    pub fn first_answers(&mut self, patience: Duration, at_least: Duration) -> io::Result<()> {
        let begin = Instant::now();
        self.keep_asking = !at_least.is_zero();
        for seat in 0..self.seats.len() {
            self.begin(seat)?;
        }
        let mut served = self.served();
        let mut news = begin;
        while served < self.seats.len() && news.elapsed() < patience && !self.is_hopeless() {
            self.turn(Duration::from_millis(u64::from(TICK)))?;
            let now_served = self.served();
            if now_served > served {
                served = now_served;
                news = Instant::now();
            }
        }
        while begin.elapsed() < at_least && !self.is_hopeless() {
            self.turn(at_least.saturating_sub(begin.elapsed()))?;
        }
        Ok(())
    }

    /// Lets the clients go on for this long, and counts.
    ///
    /// # Errors
    /// Where sockets cannot be had.
    pub fn measure(&mut self, window: Duration) -> io::Result<Sample> {
        self.keep_asking = true;
        self.figures = Figures::new()?;
        self.restart_clocks();
        let begin = Instant::now();
        while begin.elapsed() < window && !self.is_hopeless() {
            self.turn(window.saturating_sub(begin.elapsed()))?;
        }
        let figures = &self.figures;
        Ok(Sample {
            seconds: begin.elapsed().as_secs_f64(),
            requests: figures.requests,
            connections: figures.connections,
            errors: figures.errors,
            starved: self.seats.len() - self.served(),
            latencies: figures
                .latencies
                .iter_recorded()
                .map(|at| (at.value_iterated_to(), at.count_at_value()))
                .collect(),
        })
    }

    fn is_hopeless(&self) -> bool {
        self.failures_in_a_row > FAILURES
    }

    /// Requests that were under way during a pause would seem to have taken all of it.
    fn restart_clocks(&mut self) {
        let now = Instant::now();
        for client in self
            .seats
            .iter_mut()
            .filter_map(|seat| seat.client.as_mut())
        {
            client.since = now;
        }
    }

    /// Waits for events and follows them up.
    fn turn(&mut self, at_most: Duration) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let wait = u16::try_from(at_most.as_millis())
            .unwrap_or(TICK)
            .clamp(1, TICK);
        let n = match self.epoll.wait(&mut events, EpollTimeout::from(wait)) {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..n] {
            self.advance(usize::try_from(event.data()).unwrap_or(0))?;
        }
        Ok(())
    }

    /// Gives a seat a new connection and sends the request.
    fn begin(&mut self, seat: usize) -> io::Result<()> {
        let client = match Client::connect(self.server, self.connected) {
            Ok(client) => client,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return self.failed(seat);
            }
            Err(error) => return Err(error),
        };
        self.connected += 1;
        self.figures.connections += 1;
        self.seats[seat].client = Some(client);
        self.ask(seat, true)
    }

    /// Sends a request. The reply is left to the event that announces it, so that nobody comes twice in a row.
    fn ask(&mut self, seat: usize, is_new: bool) -> io::Result<()> {
        let Some(client) = &mut self.seats[seat].client else {
            return Ok(());
        };
        let progress = client.send(self.traffic);
        // Edge-triggered, so that one registration serves the connection's whole life.
        let room = match progress {
            Progress::WantsRoom => EpollFlags::EPOLLOUT,
            _ => EpollFlags::empty(),
        };
        let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLET | room;
        let mut event = EpollEvent::new(events, seat as u64);
        match (progress, is_new) {
            (Progress::Broken, _) => self.failed(seat),
            (_, true) => Ok(self.epoll.add(&*client, event)?),
            (Progress::WantsRoom, false) => Ok(self.epoll.modify(&*client, &mut event)?),
            (_, false) => Ok(()),
        }
    }

    fn advance(&mut self, seat: usize) -> io::Result<()> {
        let Some(client) = self
            .seats
            .get_mut(seat)
            .and_then(|seat| seat.client.as_mut())
        else {
            return Ok(());
        };
        match client.advance(self.traffic, &mut self.buffer) {
            Progress::WantsRoom | Progress::WantsReply => Ok(()),
            Progress::Answered => self.answered(seat),
            Progress::Broken => self.failed(seat),
        }
    }

    fn answered(&mut self, seat: usize) -> io::Result<()> {
        let place = &mut self.seats[seat];
        place.answered = true;
        self.failures_in_a_row = 0;
        self.figures.requests += 1;
        if let Some(client) = &mut place.client {
            let took = u64::try_from(client.since.elapsed().as_nanos()).unwrap_or(LONGEST);
            self.figures.latencies.saturating_record(took.max(1));
        }
        match (self.keep_asking, self.mode) {
            // Silent from now on.
            (false, _) => Ok(()),
            // Closing the old connection first keeps the number of connections at the number of clients.
            (true, Mode::PerRequest) => {
                self.seats[seat].client = None;
                self.begin(seat)
            }
            (true, Mode::Persistent | Mode::Idle) => {
                if let Some(client) = &mut place.client {
                    client.next();
                }
                self.ask(seat, false)
            }
        }
    }

    /// A connection broke: another takes its place, unless the server is gone for good.
    fn failed(&mut self, seat: usize) -> io::Result<()> {
        self.seats[seat].client = None;
        self.figures.errors += 1;
        self.failures_in_a_row += 1;
        if !self.keep_asking || self.is_hopeless() {
            return Ok(());
        }
        if self.failures_in_a_row > self.seats.len() as u64 {
            // Nobody is served now: do not take the processor from a server that tries to get up.
            std::thread::sleep(Duration::from_millis(1));
        }
        self.begin(seat)
    }
}
