//! Addresses: where this node can be found, and where the trackers and peers are that it was told of.

use std::net::{SocketAddr, TcpListener};

use crate::net::address::{Advertised, HostPort};
use crate::net::named::NamedPeers;
use crate::net::resolve;

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
}

impl Place {
    /// That of one who serves nothing.
    pub fn nowhere() -> Self {
        Self {
            listeners: Vec::new(),
            addresses: Vec::new(),
            advertise: None,
        }
    }
}

pub(super) fn resolve_trackers(names: &[HostPort]) -> anyhow::Result<Vec<TrackerAddress>> {
    names
        .iter()
        .map(|name| {
            let mut addresses = resolve::apart(name)?;
            // Records are IPv4, and a peer is registered under the address that it comes from.
            addresses.sort_by_key(SocketAddr::is_ipv6);
            Ok(TrackerAddress {
                name: name.to_string(),
                addresses,
            })
        })
        .collect()
}

/// The peers with all their addresses.
pub(super) fn resolve_peers(names: &[HostPort]) -> anyhow::Result<NamedPeers> {
    let mut peers = NamedPeers::default();
    for name in names {
        peers.add(name, &resolve::apart(name)?);
    }
    Ok(peers)
}
