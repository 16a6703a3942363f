//! Watching the others complete their copies: a process for each peer that a tracker names, which asks for its map
//! (WANT_MAP, PROTOCOL §5) until that has every block.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::confine::{Confinement, Role};
use crate::download::extension::{Conversation, Unanswered};
use crate::download::report::Listed;
use crate::hash::CascadeHash;
use crate::net::admission::{Admission, Admitted, Refused};
use crate::sys::child::{self, How};
use crate::sys::fork;

/// How often a peer is asked.
const EVERY: Duration = Duration::from_millis(250);
/// How many are watched at the same time, over all files.
const AT_ONCE: usize = 128;
/// How many are remembered.
const MOST: usize = 4096;
/// A peer that does not answer is asked again after so long, at first and at most; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Who is watched.
type Key = (CascadeHash, SocketAddr);

/// The peers of all files.
#[derive(Debug)]
pub struct Watchers {
    peers: HashMap<Key, Watched>,
    admission: Admission,
}

/// A peer and a file.
#[derive(Debug)]
struct Watched {
    blocks: u32,
    /// The operator of the tracker vouches for it.
    good: bool,
    failures: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Due(Instant),
    Watching(Pid, Admitted),
    /// It has everything.
    Done,
}

impl Watchers {
    /// Nobody is watched yet.
    ///
    /// # Errors
    /// Where no memory is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            peers: HashMap::new(),
            admission: Admission::new()?,
        })
    }

    /// A tracker names this peer for a file of so many blocks.
    pub fn meet(&mut self, hash: CascadeHash, peer: Listed, blocks: u32) {
        if self.peers.len() < MOST {
            self.peers.entry((hash, peer.address)).or_insert(Watched {
                blocks,
                good: peer.good,
                failures: 0,
                state: State::Due(Instant::now()),
            });
        }
    }

    /// Starts the processes that are due.
    ///
    /// # Errors
    /// As fork(2).
    pub fn start(&mut self, confinement: &Confinement) -> io::Result<()> {
        let now = Instant::now();
        let is_watching = |watched: &&Watched| matches!(watched.state, State::Watching(..));
        let room = AT_ONCE.saturating_sub(self.peers.values().filter(is_watching).count());
        let is_due = |watched: &Watched| matches!(watched.state, State::Due(at) if at <= now);
        let admission = &self.admission;
        let due = self.peers.iter_mut().filter(|(_, watched)| is_due(watched));
        let mut started = 0;
        for ((hash, peer), watched) in due {
            if started >= room {
                return Ok(());
            }
            let admitted = match admission.admit(admission.now(), *peer, watched.good) {
                Ok(admitted) => admitted,
                Err(Refused::All) => return Ok(()),
                Err(Refused::Address | Refused::Port) => continue,
            };
            let role = Role::Asker { port: peer.port() };
            let life = || watch(*peer, *hash, watched.blocks);
            let pid = fork::spawn_leaf(&[], || match admission.protect() {
                Ok(()) => confinement.confined(role, life),
                Err(_) => BROKEN_OFF,
            })?;
            watched.state = State::Watching(pid, admitted);
            started += 1;
        }
        Ok(())
    }

    /// A process ended; answers whom it saw complete.
    pub fn ended(&mut self, pid: Pid, how: How) -> Option<Key> {
        let is_it =
            |watched: &Watched| matches!(watched.state, State::Watching(own, _) if own == pid);
        let (key, watched) = self.peers.iter_mut().find(|(_, watched)| is_it(watched))?;
        let State::Watching(_, mut admitted) = std::mem::replace(&mut watched.state, State::Done)
        else {
            return None;
        };
        let ended = |status: u8| how == How::Exited(status.into());
        if ended(UNANSWERED) {
            self.admission.failed(self.admission.now(), admitted);
        } else if ended(COMPLETE) || ended(BROKEN_OFF) {
            self.admission.answered(&mut admitted);
        } else {
            self.admission.ended(admitted);
        }
        if ended(COMPLETE) {
            return Some(*key);
        }
        let pause = FIRST_PAUSE * 2u32.pow(watched.failures.min(8));
        watched.failures += 1;
        watched.state = State::Due(Instant::now() + pause.min(LONGEST_PAUSE));
        None
    }

    /// Ends all processes; they are reaped as others are.
    pub fn stop(&mut self) {
        for (_, watched) in self.peers.drain() {
            if let State::Watching(pid, _) = watched.state {
                child::signal(pid, Signal::SIGKILL);
            }
        }
    }
}

/// How a process ends: the peer has every block; it cannot be asked any more; it has never answered.
const COMPLETE: u8 = 0;
const BROKEN_OFF: u8 = 1;
const UNANSWERED: u8 = 2;

/// The life of a process.
fn watch(peer: SocketAddr, hash: CascadeHash, blocks: u32) -> u8 {
    let length = u64::from(blocks.div_ceil(8));
    let Ok(mut conversation) = Conversation::begin(&[peer]) else {
        return UNANSWERED;
    };
    let mut answered = false;
    loop {
        match conversation.ask_map(hash, Some(blocks)) {
            Ok(map) if is_full(&map, blocks) => return COMPLETE,
            Ok(map) if map.len() as u64 != length => return BROKEN_OFF,
            Ok(_) => answered = true,
            Err(Unanswered::UnknownHash | Unanswered::NoExtension) => return BROKEN_OFF,
            Err(_) if answered => return BROKEN_OFF,
            Err(_) => return UNANSWERED,
        }
        sleep(EVERY);
    }
}

/// Whether a map says that every block is present.
fn is_full(map: &[u8], blocks: u32) -> bool {
    let bit = |block: u32| {
        let byte = map.get(block as usize / 8);
        byte.is_some_and(|byte| byte & (0x80 >> (block % 8)) != 0)
    };
    map.is_empty() || (0..blocks).all(bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_full_where_it_is_empty_or_has_every_bit() {
        assert!(is_full(&[], 9));
        assert!(is_full(&[0xff, 0x80], 9));
        assert!(!is_full(&[0xff, 0x00], 9));
        assert!(!is_full(&[0xff], 9));
        assert!(!is_full(&[0xfe, 0x80], 9));
    }
}
