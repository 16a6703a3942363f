//! What a server grants its clients.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Members of a pool, unless the user says otherwise.
pub const DEFAULT_POOL: usize = 16;

use super::turns::Turns;
use crate::net::bucket::Bucket;

/// The limits of a server, the same under every model.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections served at once; at the limit newcomers wait in the backlog.
    pub max_connections: usize,
    /// Connections that one address may have at once, IPv6 by its first 64 bits; the machine itself is exempt.
    pub max_per_address: u32,
    /// Members of a pool, in the models that have one: so many connections are served at once.
    pub pool: usize,
    /// How long a connection may be silent between requests. Some clients wait for the close (PROTOCOL §4: 5 s).
    pub idle_timeout: Duration,
    /// How long a whole request may take from its first byte.
    pub request_timeout: Duration,
    /// How long a client may take no byte of a response.
    pub send_timeout: Duration,
    /// How long a connection may last, whatever happens on it.
    pub max_lifetime: Duration,
    /// How long transfers may go on after the server was asked to stop.
    pub grace: Duration,
    /// How many connections wait to be accepted.
    pub backlog: u16,
    /// Whether the sockets go on listening when the server has stopped: whoever passed them to it owns them, and
    /// newcomers wait for the next server.
    pub keeps_listening: bool,
    /// Bytes per second over all connections.
    pub upload: Option<Arc<Bucket>>,
    /// How many connections are served at full speed at once.
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
    /// For clients that may be people, who take their time: an hour for a line, and as long to read what comes back;
    /// a day for all.
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

    /// When a process that serves one connection is ended by force: it should have ended by itself before.
    pub fn last_resort(&self) -> Duration {
        const MARGIN: Duration = Duration::from_secs(5);
        self.max_lifetime + MARGIN
    }
}

/// As many as the descriptors and processes of this user allow, leaving some for the rest of the program.
fn default_max_connections() -> usize {
    const MOST: u64 = 4096;
    let allowed = |resource| getrlimit(resource).map_or(MOST, |(soft, _)| soft);
    let descriptors = allowed(Resource::RLIMIT_NOFILE).saturating_sub(64);
    let processes = allowed(Resource::RLIMIT_NPROC) / 2;
    descriptors.min(processes).clamp(1, MOST) as usize
}

/// Allows this process as many descriptors as it may allow itself: a file takes several. The default of most systems is
/// low for the sake of select(2), which is not used here.
pub fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it cannot be raised, fewer files can be opened, and those that cannot are named.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
