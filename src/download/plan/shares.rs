//! Which blocks fall to which node of a swarm.
//!
//! All who download want the rarest blocks first, and at the beginning those are all that only a seed has. Were each to
//! choose among them at random, many blocks would leave the seed twice before anybody saw that they are not rare any
//! more, and the seed's uplink is what the whole swarm waits for. So each block falls to one node, by rendezvous
//! hashing: every node computes the same weight of every node for the block, and the heaviest is the first to fetch
//! it. Nobody has to agree on anything, and a node that comes or goes moves its own blocks only.
//!
//! It is no more than an order of preference. A node whose share is done helps with those blocks of others that they
//! will come to last.

use std::net::{IpAddr, SocketAddr};

use super::Plan;

/// Among how many other nodes the blocks are shared out.
const MOST_NODES: usize = 64;

/// The preference among equally rare blocks, for one peer that is asked.
#[derive(Debug)]
pub(super) struct Shares {
    /// Whose share is preferred.
    preferred: Option<u64>,
    /// The other nodes among whom the blocks are shared out.
    others: Vec<u64>,
}

impl Plan {
    /// The preference for blocks that this peer is asked for: of one that has everything, those that fall to this node.
    /// One without a map that lacks blocks most likely has those that fall to it.
    pub(super) fn shares(&self, asked: SocketAddr) -> Shares {
        let Some((own, peer)) = self.own.zip(self.peers.get(&asked)) else {
            return Shares::none();
        };
        let preferred = if peer.knowledge.seems_complete() {
            own
        } else if peer.knowledge.knows_maps() {
            return Shares::none();
        } else {
            asked
        };
        let downloading = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.dropped && !peer.lacks_file && peer.failures == 0)
            .filter(|(_, peer)| !peer.knowledge.has_everything())
            .map(|(address, _)| *address);
        // Every block is weighed for each of them: a tracker that names thousands must not keep the processor busy.
        let others = downloading
            .take(MOST_NODES)
            .chain([own])
            .filter(|node| *node != preferred)
            .map(number)
            .collect();
        Shares {
            preferred: Some(number(preferred)),
            others,
        }
    }
}

impl Shares {
    /// No preference.
    fn none() -> Self {
        Self {
            preferred: None,
            others: Vec::new(),
        }
    }

    /// The lower, the better: first the blocks for which the preferred node is the heaviest, in the order of its
    /// weight; then those for which it is the second, those that the heaviest will come to last before the others;
    /// and so on.
    pub(super) fn rank(&self, block: u32) -> u64 {
        let Some(preferred) = self.preferred else {
            return 0;
        };
        let own = weight(preferred, block);
        let (mut heavier, mut heaviest) = (0, 0);
        for other in self.others.iter().map(|node| weight(*node, block)) {
            heavier += u64::from(other > own);
            heaviest = heaviest.max(other);
        }
        let order = if heavier == 0 { !own } else { heaviest };
        (heavier.min(0xff) << 56) | (order >> 8)
    }
}

/// A node as a number, the same for everybody who knows its address.
fn number(node: SocketAddr) -> u64 {
    let ip = match node.ip().to_canonical() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() as u64 ^ (ip.to_bits() >> 64) as u64,
    };
    mix(ip ^ (u64::from(node.port()) << 48))
}

fn weight(node: u64, block: u32) -> u64 {
    mix(node ^ u64::from(block))
}

/// The finaliser of splitmix64: every bit of the result depends on every bit of the input.
fn mix(input: u64) -> u64 {
    let mut bits = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u16) -> Vec<u64> {
        (1..=count)
            .map(|port| number(([192, 0, 2, 1], port).into()))
            .collect()
    }

    fn of(node: usize, nodes: &[u64]) -> Shares {
        let mut others = nodes.to_vec();
        let preferred = Some(others.remove(node));
        Shares { preferred, others }
    }

    #[test]
    fn each_block_falls_to_one_node_and_each_node_gets_about_as_many() {
        let nodes = nodes(8);
        let mut counts = [0; 8];
        for block in 0..4096 {
            let heaviest: Vec<usize> = (0..8)
                .filter(|node| of(*node, &nodes).rank(block) >> 56 == 0)
                .collect();
            assert_eq!(heaviest.len(), 1, "block {block}");
            counts[heaviest[0]] += 1;
        }
        assert!(
            counts.iter().all(|count| (400..=640).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn a_node_that_goes_moves_no_block_but_its_own() {
        let all = nodes(8);
        let fewer = &all[..7];
        for block in 0..1000 {
            let holder = |nodes: &[u64]| {
                (0..nodes.len()).find(|node| of(*node, nodes).rank(block) >> 56 == 0)
            };
            let before = holder(&all);
            assert!(before == Some(7) || before == holder(fewer));
        }
    }
}
