//! Addresses: where this node can be found, and where the trackers and peers are that it was told of.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use crate::net::address::{Advertised, HostPort};
use crate::net::named::NamedPeers;
use crate::net::resolve;

use super::Sources;
use super::names::Found;

/// How long after a look-up that failed the next one is, at first and at most; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// A tracker by its name, and its addresses.
#[derive(Debug, Clone)]
pub struct TrackerAddress {
    /// As the user named it.
    pub name: String,
    /// To be tried in this order.
    pub addresses: Vec<SocketAddr>,
}

/// Where this node can be found.
#[derive(Debug)]
pub struct Place {
    /// Its listening sockets; none where it does not serve.
    pub listeners: Vec<TcpListener>,
    /// Their addresses.
    pub addresses: Vec<SocketAddr>,
    /// What the user says its address is.
    pub advertise: Option<Advertised>,
    /// It downloads nothing, so that a tracker that names nobody is no news.
    pub only_seeds: bool,
}

impl Place {
    /// That of one who serves nothing.
    pub fn nowhere() -> Self {
        Self {
            listeners: Vec::new(),
            addresses: Vec::new(),
            advertise: None,
            only_seeds: false,
        }
    }
}

/// What the user's names mean.
pub(super) struct Resolved {
    pub trackers: Vec<TrackerAddress>,
    pub peers: NamedPeers,
    /// All names, the trackers' first, and what is known of each.
    pub names: Vec<HostPort>,
    pub found: Found,
}

/// Looks up the names of trackers and peers. A name server that does not answer yet may do so later: a daemon goes on
/// without what it does not know, or waits for it where it `waits`.
pub(super) fn resolve(sources: &Sources, daemon: bool, waits: bool) -> anyhow::Result<Resolved> {
    let names: Vec<HostPort> = sources
        .tracker
        .iter()
        .chain(&sources.peer)
        .cloned()
        .collect();
    let mut found: Found = Vec::new();
    for name in &names {
        let mut pause = FIRST_PAUSE;
        found.push(loop {
            match resolve::apart(name) {
                Ok(addresses) => break Some(addresses),
                Err(error) if daemon && resolve::is_temporary(&error) => {
                    if pause == FIRST_PAUSE {
                        log::warn!("{error} (trying again)");
                    }
                    if !waits {
                        break None;
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        });
    }
    let tracker = |(name, found): (&HostPort, &Option<Vec<SocketAddr>>)| TrackerAddress {
        name: name.to_string(),
        addresses: of_tracker(found.clone().unwrap_or_default()),
    };
    let trackers = sources.tracker.iter().zip(&found).map(tracker).collect();
    let mut peers = NamedPeers::default();
    for (name, found) in sources.peer.iter().zip(&found[sources.tracker.len()..]) {
        peers.add(name, found.as_deref().unwrap_or_default());
    }
    Ok(Resolved {
        trackers,
        peers,
        names,
        found,
    })
}

/// The addresses of a tracker in the order in which a peer that serves tries them: its records are IPv4, and a peer is
/// registered under the address from which it comes.
pub(super) fn of_tracker(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses
}
