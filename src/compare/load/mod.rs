//! The load generator: a process that plays all clients of a cell with one thread and epoll.
//!
//! | module | what it is |
//! |---|---|
//! | [`client`] | one client: its connection, its request, what it has seen |
//! | [`crowd`] | all clients of a cell, driven for a while |
//! | [`responder`] | a server that does as little as possible, to find the generator's own limit |
//!
//! An order is followed by two pauses, in which whoever ordered looks at the server: one before the measured time
//! ([`Prepared`]) and one after it ([`Sample`]), while the connections are still open.

pub mod client;
pub mod crowd;
pub mod responder;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::part;
use super::plan::Mode;
use super::traffic::Traffic;
use crowd::Crowd;

/// Clients that have not got their first answer count as starved when nobody got a first answer for so long.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long the clients are busy, at least, before anything is measured.
const WARM_UP: Duration = Duration::from_millis(30);

/// What the generator is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The server; none is the responder within the generator.
    pub server: Option<SocketAddr>,
    /// What the clients say.
    pub traffic: Traffic,
    /// How they behave.
    pub mode: Mode,
    /// How many are busy at once.
    pub clients: usize,
    /// How many more keep a silent connection.
    pub idle: usize,
    /// How long it is measured.
    pub window: Duration,
}

/// The generator's first answer: all is prepared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prepared {
    /// Idle connections on which the server has answered once.
    pub idle_served: usize,
}

/// The leave to go on, after [`Prepared`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Go;

/// The generator's second answer: what was measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sample {
    /// The measured time, in seconds.
    pub seconds: f64,
    /// Replies that were complete.
    pub requests: u64,
    /// Connections that were made.
    pub connections: u64,
    /// Connections that broke, and replies that were wrong.
    pub errors: u64,
    /// Clients that never got an answer, not even while the others warmed up.
    pub starved: usize,
    /// How often each latency was seen, in nanoseconds to within 1 %.
    pub latencies: BTreeMap<u64, u64>,
}

/// The generator's whole life.
///
/// # Errors
/// Where it cannot follow its order; never because of a server that does not answer.
pub fn run() -> io::Result<()> {
    let Some(order) = part::take_order::<Order>()? else {
        return Ok(());
    };
    let server = match order.server {
        Some(server) => server,
        None => responder::start(order.traffic.clone())?,
    };
    let mut idle = Crowd::new(server, &order.traffic, Mode::Persistent, order.idle)?;
    idle.first_answers(PATIENCE, Duration::ZERO)?;
    let mut busy = Crowd::new(server, &order.traffic, order.mode, order.clients)?;
    if order.mode != Mode::Idle {
        busy.first_answers(PATIENCE, WARM_UP)?;
    }
    part::give_answer(&Prepared {
        idle_served: idle.served(),
    })?;
    if part::take_order::<Go>()?.is_none() {
        return Ok(());
    }
    if order.mode == Mode::Idle {
        // They come late, so that the memory of the idle connections can be looked at before.
        busy.first_answers(PATIENCE, WARM_UP)?;
    }
    let sample = busy.measure(order.window)?;
    part::give_answer(&sample)?;
    // The connections stay open until they were looked at.
    part::take_order::<Go>()?;
    Ok(())
}
