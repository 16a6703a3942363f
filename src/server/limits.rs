//! The limits that a server sets its clients.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Default size of a pool.
pub const DEFAULT_POOL: usize = 16;

use super::turns::Turns;
use crate::net::bucket::Bucket;

/// The limits of a server, the same under every model.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Concurrent connections; at the limit new ones wait in the backlog.
    pub max_connections: usize,
    /// Concurrent connections from one address (of IPv6, from one /64); the machine itself is exempt.
    pub max_per_address: u32,
    /// Size of the pool in the models that have one, and so the number of connections served at once.
    pub pool: usize,
    /// How long a connection may be silent between requests. Some clients wait for the close (PROTOCOL §4: 5 s).
    pub idle_timeout: Duration,
    /// How long a request may take from its first byte to its last.
    pub request_timeout: Duration,
    /// How long a client may go without accepting any byte of a response.
    pub send_timeout: Duration,
    /// How long a connection may last in all.
    pub max_lifetime: Duration,
    /// The grace period: how long transfers may continue after the server was asked to stop.
    pub grace: Duration,
    /// The length of the backlog, as for listen(2).
    pub backlog: u16,
    /// Whether the sockets keep listening after the server has stopped: they belong to whoever passed them to it, and
    /// new connections wait for its successor.
    pub keeps_listening: bool,
    /// Upload limit over all connections, in bytes per second.
    pub upload: Option<Arc<Bucket>>,
    /// Upload slots: how many connections send at full speed at once.
    pub turns: Option<Arc<Turns>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: default_max_connections(),
            max_per_address: 64,
            pool: DEFAULT_POOL,
            idle_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(30),
            max_lifetime: Duration::from_secs(3600),
            grace: Duration::from_secs(10),
            backlog: 1024,
            keeps_listening: false,
            upload: None,
            turns: None,
        }
    }
}

impl Limits {
    /// For clients that may be people: an hour for a line and for reading the reply, and a day in all.
    pub fn patient() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            idle_timeout: HOUR,
            request_timeout: HOUR,
            send_timeout: HOUR,
            max_lifetime: 24 * HOUR,
            ..Self::default()
        }
    }

    /// When a process that serves one connection is killed: a last resort, for it should have ended by itself long
    /// before.
    pub fn last_resort(&self) -> Duration {
        const MARGIN: Duration = Duration::from_secs(5);
        self.max_lifetime + MARGIN
    }
}

/// As many connections as this user's limits on descriptors and processes allow, less a reserve for the rest of the
/// program.
fn default_max_connections() -> usize {
    const MOST: u64 = 4096;
    let allowed = |resource| getrlimit(resource).map_or(MOST, |(soft, _)| soft);
    let descriptors = allowed(Resource::RLIMIT_NOFILE).saturating_sub(64);
    let processes = allowed(Resource::RLIMIT_NPROC) / 2;
    descriptors.min(processes).clamp(1, MOST) as usize
}

/// Raises the soft limit on descriptors to the hard one, since each file takes several. The soft limit is low on most
/// systems for the sake of select(2), which is not used here.
pub fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it cannot be raised, fewer files can be opened, and those that cannot are named.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// How many more descriptors this process may open.
pub fn descriptors_left() -> u64 {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    // A new one has the lowest number that is free.
    match std::io::stderr().as_fd().try_clone_to_owned() {
        Ok(next) => limit.saturating_sub(next.as_raw_fd() as u64),
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => 0,
        Err(_) => u64::MAX,
    }
}
