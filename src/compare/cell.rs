//! What was measured of one model under one load.

use serde::Serialize;

use super::plan::Mode;
use super::stats::{Latency, Spread};

/// What was measured of one model under one load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CellReport {
    /// The model, or `generator`.
    pub model: String,
    /// How the clients behaved.
    pub mode: Mode,
    /// How many were busy at once.
    pub clients: usize,
    /// How many more connections were open and silent.
    pub idle: usize,
    /// Clients that never got an answer. Where there are any, averages would say nothing and are left out.
    pub starved: usize,
    /// Replies that were complete.
    pub requests: u64,
    /// Connections that broke, and replies that were wrong.
    pub errors: u64,
    /// Connections per second.
    pub connections_per_second: Option<Spread>,
    /// Requests per second.
    pub requests_per_second: Option<Spread>,
    /// Latencies, in microseconds.
    pub latency_us: Option<Latency>,
    /// The server's processor time per request, in microseconds.
    pub cpu_us_per_request: Option<f64>,
    /// How many cores the server kept busy.
    pub cores: Option<f64>,
    /// The server's memory at the end, in KiB: the proportional shares of all its processes.
    pub memory_kib: Option<Spread>,
    /// What the idle connections cost.
    pub idle_memory: Option<IdleMemory>,
    /// The rate as a share of what the generator reaches at most.
    pub of_generator: Option<f64>,
}

/// The memory of idle connections.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct IdleMemory {
    /// Idle connections that had got an answer and so were really served.
    pub served: usize,
    /// The server's memory without a connection, in KiB; as in the next two, pages of files (the program itself)
    /// are left out.
    pub before_kib: f64,
    /// With the idle connections, in KiB.
    pub with_kib: f64,
    /// The difference per connection served, in KiB; none where none was.
    pub per_connection_kib: Option<f64>,
}

impl CellReport {
    /// The rate that this cell is about: connections where each request has one, else requests.
    pub fn rate(&self) -> Option<Spread> {
        self.requests_per_second
    }

    /// Whether the generator itself may have been what was measured.
    pub fn is_near_limit(&self) -> bool {
        self.of_generator.is_some_and(|share| share >= 0.9) && self.model != "generator"
    }
}
