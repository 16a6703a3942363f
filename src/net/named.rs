//! Peers that the user named, with all addresses of each. A peer goes by its first one: with two addresses it is not two
//! peers.

use std::net::SocketAddr;

use super::address::HostPort;
use super::connect::by_turns;

/// A peer as the user named it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    name: String,
    /// To be tried in this order; at least one.
    addresses: Vec<SocketAddr>,
}

/// The peers that the user named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedPeers(Vec<Named>);

impl NamedPeers {
    /// Adds a peer, unless it is known under another name.
    pub fn add(&mut self, name: &HostPort, addresses: &[SocketAddr]) {
        let addresses = by_turns(addresses);
        let Some(first) = addresses.first() else {
            return;
        };
        let is_known = |known: &Named| known.addresses.contains(first);
        if !self.0.iter().any(is_known) {
            let name = name.to_string();
            self.0.push(Named { name, addresses });
        }
    }

    /// The addresses of a peer are others now.
    pub fn renew(&mut self, name: &HostPort, addresses: &[SocketAddr]) {
        let text = name.to_string();
        let addresses = by_turns(addresses);
        match self.0.iter_mut().find(|named| named.name == text) {
            None => self.add(name, &addresses),
            Some(named) => {
                let is_known = |address| named.addresses.contains(address);
                let same = addresses.len() == named.addresses.len();
                let is_news = !same || !addresses.iter().all(is_known);
                if is_news && !addresses.is_empty() {
                    named.addresses = addresses;
                }
            }
        }
    }

    /// The addresses by which they go.
    pub fn iter(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let first = |named: &Named| named.addresses.first().copied();
        self.0.iter().filter_map(first)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a peer that goes by this address was named.
    pub fn contains(&self, peer: SocketAddr) -> bool {
        self.iter().any(|named| named == peer)
    }

    /// All addresses of the peer that goes by this one.
    pub fn addresses_of(&self, peer: SocketAddr) -> Vec<SocketAddr> {
        self.named(peer)
            .map_or_else(|| vec![peer], |named| named.addresses.clone())
    }

    /// A peer for people: its name and what belongs to it, or its address.
    pub fn describe(&self, peer: SocketAddr) -> String {
        let named = self.named(peer);
        let Some(named) = named.filter(|named| named.name != peer.to_string()) else {
            return peer.to_string();
        };
        let addresses: Vec<String> = named.addresses.iter().map(SocketAddr::to_string).collect();
        format!("{} ({})", named.name, addresses.join(", "))
    }

    fn named(&self, peer: SocketAddr) -> Option<&Named> {
        let goes_by = |named: &&Named| named.addresses.first() == Some(&peer);
        self.0.iter().find(goes_by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_goes_by_its_first_address_and_has_all_of_them() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let name = |text: &str| text.parse::<HostPort>().expect("a name");
        let (six, four) = (address("[::1]:9"), address("127.0.0.1:9"));
        let mut peers = NamedPeers::default();
        peers.add(&name("nowhere:9"), &[]);
        peers.add(&name("host:9"), &[six, four]);
        peers.add(&name("[::1]:9"), &[six]);
        peers.add(&name("127.0.0.1:8"), &[address("127.0.0.1:8")]);
        let other = address("127.0.0.1:8");
        assert_eq!(peers.iter().collect::<Vec<_>>(), [six, other]);
        assert_eq!(peers.addresses_of(six), [six, four]);
        assert_eq!(peers.addresses_of(four), [four]);
        assert_eq!(peers.describe(six), "host:9 ([::1]:9, 127.0.0.1:9)");
        assert_eq!(peers.describe(other), "127.0.0.1:8");
        assert!(peers.contains(six) && !peers.contains(four));
        peers.renew(&name("host:9"), &[four]);
        assert!(peers.contains(four) && !peers.contains(six));
    }
}
