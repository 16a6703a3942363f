//! Counting copies: by the blocks that were sent, and by the maps of those whom the tracker names.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Shared;
use super::ledger::Ledger;
use super::watch::Watchers;
use crate::cascade_file::Geometry;
use crate::confine::{Confinement, Role};
use crate::download::progress::Progress;
use crate::download::report::Heard;
use crate::hash::CascadeHash;
use crate::net::address::Advertised;
use crate::net::reach;
use crate::node::TrackerAddress;
use crate::node::announcer::{self, Announced};
use crate::node::item::found_pipe;
use crate::service::blocks::Sent;
use crate::store::bitmap::Bitmap;
use crate::sys::child::{self, How};
use crate::sys::fork;
use crate::sys::pipe::{Received, Receiver, Sender};

/// So many listers may end at the most.
const DEATHS: u32 = 5;

/// A host that turned out to have all of a file, by its place in the list.
pub type Copied = (IpAddr, usize);

/// Who has which file.
#[derive(Debug)]
pub struct Copies {
    /// How many copies of each file are waited for.
    wanted: Option<usize>,
    tracker: TrackerAddress,
    advertise: Option<Advertised>,
    confinement: Confinement,
    files: Vec<Counted>,
    ledger: Ledger,
    watchers: Watchers,
    lister: Option<Pid>,
    /// How many listers have ended that should not have.
    deaths: u32,
}

/// A file whose copies are counted.
#[derive(Debug)]
struct Counted {
    name: String,
    hash: CascadeHash,
    geometry: Geometry,
    found: (Sender<Heard>, Receiver<Heard>),
    /// For the lister: a block that is never present.
    present: Bitmap,
    progress: Progress,
}

impl Copies {
    /// So many are wanted of each file, or any number. `advertise` is what the peer is called that shares them.
    ///
    /// # Errors
    /// Where the system has no descriptor or memory left.
    pub fn new(
        wanted: Option<u32>,
        files: &[Shared],
        tracker: TrackerAddress,
        advertise: Option<Advertised>,
        confinement: Confinement,
    ) -> io::Result<Self> {
        let mut ledger = Ledger::default();
        let mut counted = Vec::new();
        for file in files {
            ledger.open(file.hash, file.geometry);
            counted.push(Counted {
                name: file.name.as_str().into(),
                hash: file.hash,
                geometry: file.geometry,
                found: found_pipe()?,
                present: Bitmap::new(1)?,
                progress: Progress::new()?,
            });
        }
        Ok(Self {
            wanted: wanted.map(|wanted| wanted as usize),
            tracker,
            advertise,
            confinement,
            files: counted,
            ledger,
            watchers: Watchers::new()?,
            lister: None,
            deaths: 0,
        })
    }

    /// What becomes readable when a peer was found.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.files.iter().map(|file| file.found.1.as_fd())
    }

    /// Starts what is due; meets those whom the tracker names. Our own peer, at this port, is none of them.
    ///
    /// # Errors
    /// As fork(2) and read(2).
    pub fn watch(&mut self, own_port: u16) -> io::Result<()> {
        if self.lister.is_none() {
            let keep: Vec<_> = self.files.iter().map(|file| file.found.0.as_fd()).collect();
            let announced = self.files.iter().map(Counted::announced).collect();
            let addresses = self.tracker.addresses.iter();
            let ports: Vec<u16> = addresses.map(SocketAddr::port).collect();
            let role = Role::Announcer { ports: &ports };
            let life = || announcer::list_often(&self.tracker, announced);
            let list = || self.confinement.confined(role, life);
            self.lister = Some(fork::spawn_leaf(&keep, list)?);
        }
        for file in &self.files {
            while let Received::Record(heard) = file.found.1.receive()? {
                let Heard::Peer(listed) = heard else {
                    continue;
                };
                let peer = listed.address;
                if !is_ourselves(peer, own_port, self.advertise)
                    && !self.ledger.has_all(peer.ip(), file.hash)
                {
                    self.watchers
                        .meet(file.hash, listed, file.geometry.blocks());
                }
            }
        }
        self.watchers.start(&self.confinement)
    }

    /// A block was sent; answers its length, and who has all now.
    pub fn sent(&mut self, to: IpAddr, sent: Sent) -> (u64, Option<Copied>) {
        let Some(index) = self.index(sent.hash) else {
            return (0, None);
        };
        let length = self.files[index].geometry.block_length(sent.block);
        let has_all = self.ledger.sent(to, sent.hash, sent.block);
        (length, has_all.then_some((to, index)))
    }

    /// A process ended, which may be one of these; answers who was seen to have all.
    ///
    /// # Errors
    /// Where the lister ends each time; one that was killed is started again.
    pub fn ended(&mut self, pid: Pid, how: How) -> anyhow::Result<Option<Copied>> {
        if self.lister.take_if(|lister| *lister == pid).is_some() {
            self.deaths += 1;
            anyhow::ensure!(
                self.deaths < DEATHS,
                "cannot count copies: the process that asks the tracker ends each time"
            );
        }
        if let Some((hash, peer)) = self.watchers.ended(pid, how)
            && self.ledger.complete(peer.ip(), hash)
        {
            return Ok(self.index(hash).map(|index| (peer.ip(), index)));
        }
        Ok(None)
    }

    /// How many hosts have all of a file.
    pub fn of(&self, hash: CascadeHash) -> usize {
        self.ledger.copies(hash)
    }

    /// How many are waited for, if any.
    pub fn wanted(&self) -> Option<usize> {
        self.wanted
    }

    /// How many hosts have all of every file.
    pub fn complete_hosts(&self) -> usize {
        self.ledger.complete_hosts()
    }

    fn index(&self, hash: CascadeHash) -> Option<usize> {
        self.files.iter().position(|file| file.hash == hash)
    }

    /// Whether each file has as many copies as are wanted.
    pub fn are_enough(&self) -> bool {
        self.wanted.is_some_and(|wanted| {
            let enough = |file: &Counted| self.ledger.copies(file.hash) >= wanted;
            self.files.iter().all(enough)
        })
    }

    /// Ends the processes; they are reaped as children are whose parent ends.
    pub fn stop(&mut self) {
        self.watchers.stop();
        if let Some(lister) = self.lister.take() {
            child::signal(lister, Signal::SIGKILL);
        }
    }
}

impl Counted {
    fn announced(&self) -> Announced<'_> {
        Announced {
            name: &self.name,
            hash: self.hash,
            present: &self.present,
            progress: &self.progress,
            found: &self.found.0,
        }
    }
}

/// Whether a tracker's record is that of the peer that shares the files.
fn is_ourselves(peer: SocketAddr, own_port: u16, advertise: Option<Advertised>) -> bool {
    let advertised = advertise.is_some_and(|own| IpAddr::V4(own.address) == peer.ip());
    let port = advertise.and_then(|own| own.port).unwrap_or(own_port);
    peer.port() == port && (advertised || reach::is_own(peer.ip()))
}
