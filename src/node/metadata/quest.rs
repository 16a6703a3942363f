//! The search for one cascade file: who may have it, who is asked, and what is accepted.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;

use super::candidates::{Asking, Candidates, Peer, PeerState, turn};
use super::read_capped;
use crate::confine::{Confinement, Role};
use crate::download::metadata::{self, Asked};
use crate::download::progress::{Figure, Progress};
use crate::download::reason;
use crate::download::report::Heard;
use crate::exit::Status;
use crate::hash::CascadeHash;
use crate::logging::complain;
use crate::net::admission::{Admission, Admitted};
use crate::net::named::NamedPeers;
use crate::node::FileSpec;
use crate::node::announcer::Announced;
use crate::node::item::found_pipe;
use crate::store::atomic::{self, Existing};
use crate::store::bitmap::Bitmap;
use crate::sys::child;
use crate::sys::fork;
use crate::sys::pipe::{Received, Receiver, Sender};
use crate::text::escape_path;

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
    peers: Candidates,
    named: NamedPeers,
    pub found: (Sender<Heard>, Receiver<Heard>),
    /// For announcers: one block, which is present when the search is over.
    present: Bitmap,
    progress: Progress,
    /// How it ended.
    pub outcome: Option<Status>,
}

impl<'a> Quest<'a> {
    /// Nobody was asked yet; these peers are known.
    pub fn new(file: &'a FileSpec, hash: CascadeHash, peers: &NamedPeers) -> io::Result<Self> {
        let mut quest = Self {
            file,
            hash,
            name: escape_path(&file.data),
            peers: Candidates::default(),
            named: peers.clone(),
            found: found_pipe()?,
            present: Bitmap::new(1)?,
            progress: Progress::new()?,
            outcome: None,
        };
        for peer in peers.iter() {
            quest.peers.meet_named(peer);
        }
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
                self.peers.meet_listed(listed);
            }
        }
        Ok(())
    }

    /// Asks those that are due, this many at the same time.
    pub fn ask_peers(&mut self, confinement: &Confinement, admission: &Admission, room: usize) {
        if self.outcome.is_some() {
            return;
        }
        if self.peers.in_question() >= room {
            self.end_turns(admission);
        }
        while self.peers.in_question() < room {
            let Some((peer, admitted)) = self.peers.next(admission) else {
                return;
            };
            peer.asked += 1;
            let addresses = self.named.addresses_of(peer.address);
            match ask(&addresses, self.hash, confinement, admission, admitted) {
                Ok(asking) => peer.state = PeerState::Asked(asking),
                Err(error) => {
                    log::warn!("cannot start a process that asks {}: {error}", peer.address);
                    peer.state = PeerState::Due(Instant::now() + FIRST_PAUSE);
                    return;
                }
            }
        }
    }

    /// Those that have been silent for their turn have the next one later.
    fn end_turns(&mut self, admission: &Admission) {
        while let Some(peer) = self.peers.overdue() {
            let next = PeerState::Due(Instant::now() + turn(peer.asked));
            if let PeerState::Asked(asking) = std::mem::replace(&mut peer.state, next) {
                child::kill(asking.pid);
                admission.failed(admission.now(), asking.admitted);
                peer.why = Some("it is silent");
            }
        }
    }

    /// The process that asked a peer ended, if it was one of this search.
    pub fn answered(&mut self, pid: Pid, asked: Asked, admission: &Admission) {
        let Some(peer) = self.peers.asked_by(pid) else {
            return;
        };
        let pause = FIRST_PAUSE * 2u32.saturating_pow(peer.asked.saturating_sub(1).min(8));
        let due = PeerState::Due(Instant::now() + pause.min(LONGEST_PAUSE));
        let next = if asked.may_change() {
            due
        } else {
            PeerState::Dropped
        };
        let PeerState::Asked(asking) = std::mem::replace(&mut peer.state, next) else {
            return;
        };
        let Asking {
            answer, admitted, ..
        } = asking;
        admit_again(asked, admitted, admission);
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
                let address = self.named.describe(peer.address);
                let (name, why) = (&self.name, asked.describe());
                log::log!(
                    level,
                    "cannot get the cascade file of {name} from {address}: {why}"
                );
            }
        }
    }

    /// The processes that ask.
    pub fn questioners(&self) -> impl Iterator<Item = Pid> {
        self.peers.iter().filter_map(|peer| match &peer.state {
            PeerState::Asked(asking) => Some(asking.pid),
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

/// Takes note of what became of a connection.
fn admit_again(asked: Asked, mut admitted: Admitted, admission: &Admission) {
    match asked {
        Asked::Ours => admission.ended(admitted),
        Asked::Unreachable | Asked::Broken | Asked::Nonsense | Asked::Closed => {
            admission.failed(admission.now(), admitted);
        }
        _ => admission.answered(&mut admitted),
    }
}

/// Starts a process that asks a peer.
fn ask(
    addresses: &[SocketAddr],
    hash: CascadeHash,
    confinement: &Confinement,
    admission: &Admission,
    admitted: Admitted,
) -> io::Result<Asking> {
    let answer = File::from(memfd_create("answer", MFdFlags::MFD_CLOEXEC)?);
    let begun = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let port = addresses.first().map_or(0, SocketAddr::port);
    let role = Role::Worker { port };
    let life = || metadata::ask(addresses, hash, &answer, &begun) as u8;
    let keep = [answer.as_fd(), begun.as_fd()];
    let pid = fork::spawn_leaf(&keep, || match admission.protect() {
        Ok(()) => confinement.confined(role, life),
        Err(_) => Asked::Ours as u8,
    })?;
    Ok(Asking {
        pid,
        answer,
        begun,
        since: Instant::now(),
        admitted,
    })
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
