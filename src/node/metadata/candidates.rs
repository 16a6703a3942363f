//! Peers that may have a cascade file: whom to ask next, and how long to wait for the answer while others wait.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;
use nix::unistd::Pid;

use crate::download::report::Listed;
use crate::net::admission::{Admission, Admitted, Refused, ports};
use crate::net::source::Source;

/// Peers of one file that are remembered: a tracker may name as many as it likes.
const MOST_PEERS: usize = 1000;
/// How long the beginning of an answer is waited for while others wait, the first time; it doubles so often at most.
const FIRST_TURN: Duration = Duration::from_secs(2);
const LONGER_TURNS: u32 = 3;

/// A peer that may have it.
pub(super) struct Peer {
    pub address: SocketAddr,
    pub state: PeerState,
    pub asked: u32,
    /// Why it has not sent it, when it was asked last.
    pub why: Option<&'static str>,
    named: bool,
    good: bool,
    place: u8,
    met: Instant,
}

pub(super) enum PeerState {
    /// To be asked at this time.
    Due(Instant),
    Asked(Asking),
    /// It will never be asked again.
    Dropped,
}

/// A peer that is asked.
pub(super) struct Asking {
    /// The process that asks it.
    pub pid: Pid,
    /// Where that leaves the answer.
    pub answer: File,
    /// Readable as soon as the answer begins.
    pub begun: EventFd,
    pub since: Instant,
    pub admitted: Admitted,
}

impl Peer {
    /// Whether it has been silent for a turn.
    fn is_overdue(&self, now: Instant) -> bool {
        let PeerState::Asked(asking) = &self.state else {
            return false;
        };
        // What the descriptor holds is left there: another look must find it as well.
        let begun = || {
            asking
                .begun
                .read()
                .is_ok_and(|_| asking.begun.write(1).is_ok())
        };
        now.saturating_duration_since(asking.since) > turn(self.asked) && !begun()
    }
}

/// How long a peer is waited for that is asked for the so-manieth time.
pub(super) fn turn(asked: u32) -> Duration {
    FIRST_TURN * 2u32.pow(asked.saturating_sub(1).min(LONGER_TURNS))
}

/// All of them.
#[derive(Default)]
pub(super) struct Candidates(Vec<Peer>);

impl Candidates {
    /// The user names a peer.
    pub fn meet_named(&mut self, address: SocketAddr) {
        let listed = Listed {
            address,
            good: false,
            place: 0,
            last_seen: 0,
        };
        self.meet(listed, true);
    }

    /// A tracker names a peer.
    pub fn meet_listed(&mut self, listed: Listed) {
        if listed.good || !ports::is_of_another_service(listed.address.port()) {
            self.meet(listed, false);
        }
    }

    fn meet(&mut self, listed: Listed, named: bool) {
        let known = self.0.iter().any(|peer| peer.address == listed.address);
        if known || (self.0.len() >= MOST_PEERS && !self.forget_one()) {
            return;
        }
        let now = Instant::now();
        self.0.push(Peer {
            address: listed.address,
            state: PeerState::Due(now),
            asked: 0,
            why: None,
            named,
            good: listed.good,
            place: listed.place,
            met: now,
        });
    }

    /// Forgets the one that was asked most often, to make room; says whether there is one.
    fn forget_one(&mut self) -> bool {
        let peers = self.0.iter().enumerate();
        let idle = peers.filter(|(_, peer)| !peer.named && matches!(peer.state, PeerState::Due(_)));
        let worst = idle.max_by_key(|(_, peer)| peer.asked);
        let worst = worst.map(|(index, _)| index);
        worst.is_some_and(|index| {
            self.0.swap_remove(index);
            true
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.0.iter()
    }

    /// The peer that this process asks.
    pub fn asked_by(&mut self, pid: Pid) -> Option<&mut Peer> {
        let is_it =
            |peer: &&mut Peer| matches!(&peer.state, PeerState::Asked(asking) if asking.pid == pid);
        self.0.iter_mut().find(is_it)
    }

    /// How many are asked.
    pub fn in_question(&self) -> usize {
        let asked = |peer: &&Peer| matches!(peer.state, PeerState::Asked(_));
        self.0.iter().filter(asked).count()
    }

    /// A peer that has been silent for its turn, where another waits for it that was asked no more often.
    pub fn overdue(&mut self) -> Option<&mut Peer> {
        let now = Instant::now();
        let due = |peer: &&Peer| matches!(peer.state, PeerState::Due(at) if at <= now);
        let least = self.0.iter().filter(due).map(|peer| peer.asked).min()?;
        let mut peers = self.0.iter_mut();
        peers.find(|peer| peer.asked >= least && peer.is_overdue(now))
    }

    /// Whom to ask next, as far as one may be connected to.
    pub fn next(&mut self, admission: &Admission) -> Option<(&mut Peer, Admitted)> {
        let now = Instant::now();
        let mut tried: HashMap<u64, u32> = HashMap::new();
        for peer in self.0.iter().filter(|peer| peer.asked > 0) {
            *tried.entry(network(peer)).or_default() += 1;
        }
        let new_first = fastrand::bool();
        let due =
            |(_, peer): &(usize, &Peer)| matches!(peer.state, PeerState::Due(at) if at <= now);
        let mut due: Vec<_> = self.0.iter().enumerate().filter(due).collect();
        fastrand::shuffle(&mut due);
        due.sort_by_key(|(_, peer)| {
            let answered = admission.has_answered(peer.address);
            let met = new_first.then_some(Reverse(peer.met));
            let network = tried.get(&network(peer)).copied();
            let trust = (!peer.named, !answered, !peer.good);
            (peer.asked, trust, network, met, peer.place)
        });
        let admit = |index: usize| {
            let peer = &self.0[index];
            match peer.named {
                true => Ok(Admitted::named(peer.address)),
                false => admission.admit(admission.now(), peer.address, peer.good),
            }
        };
        for index in due.into_iter().map(|(index, _)| index) {
            match admit(index) {
                Ok(admitted) => return Some((self.0.get_mut(index)?, admitted)),
                Err(Refused::All) => return None,
                Err(Refused::Address | Refused::Port) => {}
            }
        }
        None
    }
}

/// The network of a peer, which its neighbours share.
fn network(peer: &Peer) -> u64 {
    Source::from(peer.address.ip()).0 >> 8
}
