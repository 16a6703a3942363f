//! The search for one cascade file: who may have it, who is asked, and what is accepted.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;

use super::read_capped;
use crate::confine::{Confinement, Role};
use crate::download::metadata::{self, Asked};
use crate::download::progress::{Figure, Progress};
use crate::download::reason;
use crate::download::report::Heard;
use crate::exit::Status;
use crate::hash::CascadeHash;
use crate::logging::complain;
use crate::node::FileSpec;
use crate::node::announcer::Announced;
use crate::node::item::found_pipe;
use crate::store::atomic::{self, Existing};
use crate::store::bitmap::Bitmap;
use crate::sys::fork;
use crate::sys::pipe::{Received, Receiver, Sender};
use crate::text::escape_path;

/// Peers that are asked for one cascade file at the same time.
const AT_ONCE: usize = 4;
/// Peers of one file that are remembered: a tracker may name as many as it likes.
const MOST_PEERS: usize = 1000;
/// A peer that did not answer is asked again after so long, at first and at most; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// How often a peer is asked where no tracker could name others.
const ATTEMPTS: u32 = 4;

/// The search for one cascade file.
pub(super) struct Quest<'a> {
    pub file: &'a FileSpec,
    hash: CascadeHash,
    /// For messages.
    name: String,
    peers: Vec<Peer>,
    pub found: (Sender<Heard>, Receiver<Heard>),
    /// For announcers: one block, which is present when the search is over.
    present: Bitmap,
    progress: Progress,
    /// How it ended.
    pub outcome: Option<Status>,
}

/// A peer that may have it.
struct Peer {
    address: SocketAddr,
    state: PeerState,
    asked: u32,
    /// Why it has not sent it, when it was asked last.
    why: Option<&'static str>,
}

enum PeerState {
    /// To be asked at this time.
    Due(Instant),
    /// This process asks it, and leaves the answer there.
    Asked(Pid, File),
    /// It will never be asked again.
    Dropped,
}

impl<'a> Quest<'a> {
    /// Nobody was asked yet; these peers are known.
    pub fn new(file: &'a FileSpec, hash: CascadeHash, peers: &[SocketAddr]) -> io::Result<Self> {
        let mut quest = Self {
            file,
            hash,
            name: escape_path(&file.data),
            peers: Vec::new(),
            found: found_pipe()?,
            present: Bitmap::new(1)?,
            progress: Progress::new()?,
            outcome: None,
        };
        peers.iter().for_each(|peer| quest.meet(*peer));
        Ok(quest)
    }

    /// Whether this file is searched for: it may have been named twice.
    pub fn is_for(&self, file: &FileSpec) -> bool {
        self.file.cascade == file.cascade && Some(self.hash) == file.hash
    }

    /// The file as announcers see it.
    pub fn announced(&self) -> Announced<'_> {
        Announced {
            name: &self.name,
            hash: self.hash,
            present: &self.present,
            progress: &self.progress,
            found: &self.found.0,
        }
    }

    /// Meets those whom the announcers have found.
    pub fn hear(&mut self) -> io::Result<()> {
        while let Received::Record(heard) = self.found.1.receive()? {
            if let Heard::Peer(listed) = heard {
                self.meet(listed.address);
            }
        }
        Ok(())
    }

    fn meet(&mut self, address: SocketAddr) {
        let known = self.peers.iter().any(|peer| peer.address == address);
        if !known && self.peers.len() < MOST_PEERS {
            self.peers.push(Peer {
                address,
                state: PeerState::Due(Instant::now()),
                asked: 0,
                why: None,
            });
        }
    }

    /// Asks those that are due.
    pub fn ask_peers(&mut self, confinement: &Confinement) {
        let now = Instant::now();
        let asked = |peer: &&Peer| matches!(peer.state, PeerState::Asked(..));
        let room = AT_ONCE.saturating_sub(self.peers.iter().filter(asked).count());
        let due = |peer: &&mut Peer| matches!(peer.state, PeerState::Due(at) if at <= now);
        if self.outcome.is_some() {
            return;
        }
        for peer in self.peers.iter_mut().filter(due).take(room) {
            peer.asked += 1;
            peer.state = match ask(peer.address, self.hash, confinement) {
                Ok((pid, answer)) => PeerState::Asked(pid, answer),
                Err(error) => {
                    log::warn!("cannot start a process: {error}");
                    PeerState::Due(now + FIRST_PAUSE)
                }
            };
        }
    }

    /// The process that asked a peer ended, if it was one of this search.
    pub fn answered(&mut self, pid: Pid, asked: Asked) {
        let is_it =
            |peer: &&mut Peer| matches!(peer.state, PeerState::Asked(asker, _) if asker == pid);
        let Some(peer) = self.peers.iter_mut().find(is_it) else {
            return;
        };
        let pause = FIRST_PAUSE * 2u32.saturating_pow(peer.asked.saturating_sub(1).min(8));
        let due = PeerState::Due(Instant::now() + pause.min(LONGEST_PAUSE));
        let next = if asked.may_change() {
            due
        } else {
            PeerState::Dropped
        };
        let PeerState::Asked(_, answer) = std::mem::replace(&mut peer.state, next) else {
            return;
        };
        peer.why = Some(asked.describe());
        match asked {
            _ if self.outcome.is_some() => {}
            Asked::Received => match accept(&answer, self.hash, &self.file.cascade) {
                Ok(()) => self.decide(Status::Done),
                Err(error) => {
                    complain(&error);
                    self.decide(Status::Failed);
                }
            },
            Asked::NoCascadeFile => self.fail(Status::Failed, asked.describe()),
            _ => {
                // Trackers name many that are gone; they are asked again and again.
                let level = if peer.asked == 1 {
                    log::Level::Info
                } else {
                    log::Level::Debug
                };
                let (name, address, why) = (&self.name, peer.address, asked.describe());
                log::log!(
                    level,
                    "cannot get the cascade file of {name} from {address}: {why}"
                );
            }
        }
    }

    /// The processes that ask.
    pub fn questioners(&self) -> impl Iterator<Item = Pid> {
        self.peers.iter().filter_map(|peer| match peer.state {
            PeerState::Asked(pid, _) => Some(pid),
            _ => None,
        })
    }

    /// Whether nobody is left who might have it.
    pub fn is_hopeless(&self) -> bool {
        let hopeless = |peer: &Peer| match peer.state {
            PeerState::Dropped => true,
            PeerState::Due(_) => peer.asked >= ATTEMPTS,
            PeerState::Asked(..) => false,
        };
        self.peers.iter().all(hopeless)
    }

    /// Why those who were asked have not sent it, in parentheses after a space; nothing where nobody has answered.
    pub fn reasons(&self) -> String {
        let with_reason = |peer: &Peer| Some((peer.address, peer.why?));
        let wrong: Vec<_> = self.peers.iter().filter_map(with_reason).collect();
        reason::of_peers(&wrong)
    }

    /// Gives up, and says why.
    pub fn fail(&mut self, status: Status, why: &str) {
        if self.outcome.is_none() {
            let Self { name, hash, .. } = self;
            complain(&anyhow::anyhow!(
                "cannot get the cascade file of {name} ({hash}): {why}"
            ));
            self.decide(status);
        }
    }

    /// It is over: announcers need not ask for more peers.
    fn decide(&mut self, status: Status) {
        self.outcome = Some(status);
        self.present.set(0);
        self.progress.set(Figure::GivenUp, 1);
    }
}

/// Starts a process that asks a peer; its answer will be in the file.
fn ask(peer: SocketAddr, hash: CascadeHash, confinement: &Confinement) -> io::Result<(Pid, File)> {
    let answer = File::from(memfd_create("answer", MFdFlags::MFD_CLOEXEC)?);
    let role = Role::Worker { port: peer.port() };
    let life = || metadata::ask(peer, hash, &answer) as u8;
    let pid = fork::spawn_leaf(&[answer.as_fd()], || confinement.confined(role, life))?;
    Ok((pid, answer))
}

/// Writes an answer beside the data, where it has the hash: the process that left it is not believed.
fn accept(answer: &File, hash: CascadeHash, path: &Path) -> anyhow::Result<()> {
    let write = || format!("cannot write {}", escape_path(path));
    let bytes = read_capped(answer).with_context(write)?;
    ensure!(
        CascadeHash::of(&bytes) == hash,
        "{}: a process left something else",
        write()
    );
    atomic::write(path, &bytes, Existing::Keep).with_context(write)
}
