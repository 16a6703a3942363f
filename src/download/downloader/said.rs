//! What was said of peers: a person reads once what is wrong with one, and again when that is something else.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::download::reason::{self, Reason};
use crate::net::named::NamedPeers;

/// What was said last of each peer that has not answered since.
#[derive(Debug, Default)]
pub(super) struct Said {
    last: BTreeMap<SocketAddr, Reason>,
}

impl Said {
    /// Takes note of what is to be said, and answers whether it was not said yet.
    pub fn is_news(&mut self, peer: SocketAddr, reason: Reason) -> bool {
        self.last.insert(peer, reason) != Some(reason)
    }

    /// The peer answered; returns whether something was wrong with it that is over. One that sent something wrong stays
    /// wrong, though its other connections may still bring blocks.
    pub fn answered(&mut self, peer: SocketAddr) -> bool {
        let reason = self.last.get(&peer);
        reason.is_some_and(|reason| reason.block().is_none()) && self.last.remove(&peer).is_some()
    }

    /// What is wrong with the peers, those that the user named first, in parentheses after a space; nothing where
    /// nothing is.
    pub fn reasons(&self, named: &NamedPeers) -> String {
        let with_reason = |peer| Some((peer, *self.last.get(&peer)?));
        let others = self.last.keys().copied();
        let others = others.filter(|peer| !named.contains(*peer));
        let wrong: Vec<_> = named.iter().chain(others).filter_map(with_reason).collect();
        reason::of_peers(&wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::download::reason::ReasonKind;

    fn peer(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn named(ports: impl IntoIterator<Item = u16>) -> NamedPeers {
        let mut peers = NamedPeers::default();
        for port in ports {
            let name = peer(port).to_string().parse().expect("an address");
            peers.add(&name, &[peer(port)]);
        }
        peers
    }

    fn refused() -> Reason {
        Reason {
            kind: ReasonKind::Errno,
            number: 0,
            code: libc::ECONNREFUSED,
        }
    }

    #[test]
    fn the_same_is_news_again_once_the_peer_has_answered() {
        let mut said = Said::default();
        let silent = Reason::new(ReasonKind::Silent, 10);
        assert!(said.is_news(peer(1), refused()));
        assert!(!said.is_news(peer(1), refused()));
        assert!(said.is_news(peer(2), refused()));
        assert!(said.is_news(peer(1), silent));
        assert!(said.is_news(peer(1), refused()));
        assert!(said.answered(peer(1)));
        assert!(!said.answered(peer(1)));
        assert!(said.is_news(peer(1), refused()));
    }

    #[test]
    fn one_that_sent_something_wrong_does_not_answer_now() {
        let mut said = Said::default();
        said.is_news(peer(1), Reason::new(ReasonKind::WrongBlock, 7));
        assert!(!said.answered(peer(1)));
        assert!(said.reasons(&named([])).contains("corrupt block"));
    }

    #[test]
    fn an_error_names_a_few_peers_those_first_that_the_user_named() {
        let mut said = Said::default();
        assert_eq!(said.reasons(&named([1])), "");
        for port in 1..=5 {
            said.is_news(peer(port), refused());
        }
        let reasons = said.reasons(&named([4, 9]));
        assert!(
            reasons.starts_with(" (192.0.2.1:4: connection refused; "),
            "{reasons}"
        );
        assert!(said.reasons(&named(1..=5)).ends_with("; and 2 more)"));
    }
}
