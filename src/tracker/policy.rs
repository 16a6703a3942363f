//! The operator's policy: which files and peers a tracker accepts. PROTOCOL §2 and §5.
//!
//! The child that serves a connection checks it, to answer its client; the parent checks it again, before it believes
//! the child. The source is the address of the connection, which the parent knows itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::registry::{Description, Tracked};
use crate::hash::CascadeHash;
use crate::wire::tracker::PeerRecord;

/// The ranges that `ban-private` refuses: address and length of the prefix.
const PRIVATE: [([u8; 4], u32); 7] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 168, 0, 0], 16),
    ([240, 0, 0, 0], 4),
];

/// The policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The files.
    pub tracked: Tracked,
    /// The addresses of peers for which the operator vouches.
    pub good_ips: BTreeSet<Ipv4Addr>,
    /// Whether private addresses are refused.
    pub ban_private: bool,
    /// What is known of the files whose cascade files are there.
    pub described: BTreeMap<CascadeHash, Description>,
}

/// Why a request is refused. The message is sent to the client.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum PolicyRefusal {
    /// The hash is none of those that are tracked.
    #[error(
        "this tracker does not track the file; add its cascade file there, or start it with --open"
    )]
    NotTracked,
    /// Port 0.
    #[error("nobody can connect to port 0")]
    Port,
    /// 0.0.0.0, multicast, broadcast.
    #[error("nobody can connect to {0}")]
    Address(Ipv4Addr),
    /// A private address, and the operator refuses them.
    #[error("{0} is a private address, which this tracker does not take")]
    Private(Ipv4Addr),
    /// An address on the good list, and the request does not come from it.
    #[error("{0} can be registered from this address only")]
    NotYours(Ipv4Addr),
    /// A peer that is to be forgotten, and the request does not come from its address.
    #[error("{0} can be removed from this address only")]
    NotYoursToRemove(Ipv4Addr),
}

impl Policy {
    /// Whether a file is tracked.
    ///
    /// # Errors
    /// [`PolicyRefusal::NotTracked`].
    pub fn check_hash(&self, hash: &CascadeHash) -> Result<(), PolicyRefusal> {
        match &self.tracked {
            Tracked::Named(hashes) if !hashes.contains(hash) => Err(PolicyRefusal::NotTracked),
            _ => Ok(()),
        }
    }

    /// Whether a peer may be registered by `source`, and if it may, whether it is a good one.
    ///
    /// # Errors
    /// The reason, for the client.
    pub fn check_subscribe(
        &self,
        hash: &CascadeHash,
        peer: SocketAddrV4,
        source: IpAddr,
    ) -> Result<bool, PolicyRefusal> {
        self.check_hash(hash)?;
        let ip = *peer.ip();
        if peer.port() == 0 {
            return Err(PolicyRefusal::Port);
        }
        if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() {
            return Err(PolicyRefusal::Address(ip));
        }
        if self.ban_private && is_private(ip) {
            return Err(PolicyRefusal::Private(ip));
        }
        let good = self.good_ips.contains(&ip);
        if good && source.to_canonical() != ip {
            return Err(PolicyRefusal::NotYours(ip));
        }
        Ok(good)
    }

    /// Leaves out and shows peers of the registry, good ones first, as this policy wants it: what was registered under
    /// another one may still be there.
    pub fn apply(&self, peers: &mut Vec<PeerRecord>) {
        peers.retain(|peer| !(self.ban_private && is_private(*peer.address.ip())));
        for peer in &mut *peers {
            // One that became a good one is shown as such when it is known from where it was registered.
            peer.good &= self.good_ips.contains(peer.address.ip());
        }
        peers.sort_by_key(|peer| !peer.good);
    }

    /// Whether `source` may have a peer forgotten: its own address only.
    ///
    /// # Errors
    /// The reason, for the client.
    pub fn check_unsubscribe(
        &self,
        hash: &CascadeHash,
        peer: SocketAddrV4,
        source: IpAddr,
    ) -> Result<(), PolicyRefusal> {
        self.check_hash(hash)?;
        if source.to_canonical() == *peer.ip() {
            Ok(())
        } else {
            Err(PolicyRefusal::NotYoursToRemove(*peer.ip()))
        }
    }
}

fn is_private(ip: Ipv4Addr) -> bool {
    PRIVATE.iter().any(|(prefix, length)| {
        (ip.to_bits() ^ Ipv4Addr::from(*prefix).to_bits()) >> (32 - length) == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: CascadeHash = CascadeHash([1; 32]);

    fn policy() -> Policy {
        Policy {
            tracked: Tracked::Named([HASH].into()),
            good_ips: [[192, 0, 2, 1].into()].into(),
            ban_private: false,
            described: BTreeMap::new(),
        }
    }

    fn subscribe(policy: &Policy, peer: &str, source: &str) -> Result<bool, PolicyRefusal> {
        policy.check_subscribe(
            &HASH,
            peer.parse().expect("an address"),
            source.parse().expect("an address"),
        )
    }

    #[test]
    fn a_file_that_is_not_tracked_is_refused() {
        let (policy, other) = (policy(), CascadeHash([2; 32]));
        assert_eq!(policy.check_hash(&HASH), Ok(()));
        assert_eq!(policy.check_hash(&other), Err(PolicyRefusal::NotTracked));
        let open = Policy {
            tracked: Tracked::Any,
            ..policy
        };
        assert_eq!(open.check_hash(&other), Ok(()));
    }

    #[test]
    fn addresses_to_which_nobody_can_connect_are_refused() {
        let policy = policy();
        assert_eq!(
            subscribe(&policy, "10.0.0.1:0", "10.0.0.1"),
            Err(PolicyRefusal::Port)
        );
        for peer in [
            "0.0.0.0:1",
            "224.0.0.1:1",
            "239.255.255.255:1",
            "255.255.255.255:1",
        ] {
            assert!(
                matches!(
                    subscribe(&policy, peer, "10.0.0.1"),
                    Err(PolicyRefusal::Address(_))
                ),
                "{peer}"
            );
        }
        assert_eq!(subscribe(&policy, "10.0.0.1:1", "10.0.0.2"), Ok(false));
    }

    #[test]
    fn exactly_the_private_ranges_of_the_protocol_are_banned() {
        let policy = Policy {
            ban_private: true,
            ..policy()
        };
        for (ip, private) in [
            ("0.0.0.1", true),
            ("0.255.255.255", true),
            ("1.0.0.0", false),
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("100.64.0.1", false),
            ("126.255.255.255", false),
            ("127.0.0.0", true),
            ("127.255.255.255", true),
            ("128.0.0.0", false),
            ("169.253.255.255", false),
            ("169.254.0.0", true),
            ("169.254.255.255", true),
            ("169.255.0.0", false),
            ("172.15.255.255", false),
            ("172.16.0.0", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.167.255.255", false),
            ("192.168.0.0", true),
            ("192.168.255.255", true),
            ("192.169.0.0", false),
            ("223.255.255.255", false),
            ("240.0.0.0", true),
            ("255.255.255.254", true),
        ] {
            let refused = subscribe(&policy, &format!("{ip}:1"), "198.51.100.1");
            assert_eq!(
                matches!(refused, Err(PolicyRefusal::Private(_))),
                private,
                "{ip}"
            );
        }
    }

    #[test]
    fn a_good_address_is_registered_from_itself_only() {
        let policy = policy();
        for own in ["192.0.2.1", "::ffff:192.0.2.1"] {
            assert_eq!(subscribe(&policy, "192.0.2.1:1", own), Ok(true));
        }
        for other in ["192.0.2.2", "::1"] {
            assert!(matches!(
                subscribe(&policy, "192.0.2.1:1", other),
                Err(PolicyRefusal::NotYours(_))
            ));
        }
    }

    #[test]
    fn a_peer_is_removed_from_its_own_address_only() {
        let policy = policy();
        let peer = SocketAddrV4::new([192, 0, 2, 1].into(), 1);
        let check = |source: &str| {
            policy.check_unsubscribe(&HASH, peer, source.parse().expect("an address"))
        };
        assert_eq!(check("192.0.2.1"), Ok(()));
        assert!(check("192.0.2.2").is_err());
    }
}
