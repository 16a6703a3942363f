//! What the plan is told, and what it orders.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;

use crate::download::reason::ReasonKind;
use crate::download::report::Listed;
use crate::download::worker::path::Path;

/// The number of a worker; never used twice in a download.
pub type WorkerId = u32;

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The user names this peer.
    Peer(SocketAddr),
    /// A tracker names this peer.
    Listed(Listed),
    /// This is the address under which the others know this node.
    Own(SocketAddr),
    /// A worker fetched a block, and it is right and written.
    Fetched(WorkerId, u32),
    /// The peer does not have the block yet.
    Absent(WorkerId, u32),
    /// The worker found the block present before it asked for it.
    Skipped(WorkerId, u32),
    /// The peer's map of blocks, in answer to [`Order::AskMap`]; the block of that order was not sent.
    Map(WorkerId, u32, &'a [u8]),
    /// The peer does not know maps.
    NoMap(WorkerId),
    /// The peer has begun to answer, as one of this network does.
    Began(WorkerId),
    /// The path to the peer, as the worker has measured it.
    Path(WorkerId, Path),
    /// The worker can do nothing more with its peer, for this reason, and ends.
    Failed(WorkerId, Failure),
    /// The worker's process is gone.
    Died(WorkerId),
    /// The worker could not be started, for this host lacks something.
    NotStarted(WorkerId),
}

/// Why a worker gave up on its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It cannot be connected to.
    Unreachable,
    /// It was silent for too long, or closed again and again without an answer.
    Silent,
    /// It does not have the file.
    UnknownHash,
    /// It sent a wrong block, a wrong length, or a status that makes no sense.
    Lied,
    /// Not the peer's fault: the disk failed, or this process.
    Ours,
    /// This host lacks descriptors, processes or memory at present.
    Shortage,
}

impl Failure {
    /// What an error on this side is: a shortage passes, and is nobody's fault.
    pub fn of_ours(error: &io::Error) -> Self {
        let errno = error.raw_os_error().map(Errno::from_raw);
        match errno {
            Some(
                Errno::EAGAIN | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS,
            ) => Self::Shortage,
            _ => Self::Ours,
        }
    }

    /// The failure in a word for programs; documented in cascade-get(1).
    pub fn keyword(self, kind: ReasonKind) -> &'static str {
        match (self, kind) {
            (_, ReasonKind::WrongBlock) => "wrong_block",
            (_, ReasonKind::WrongLength) => "wrong_length",
            (_, ReasonKind::WrongStatus) => "wrong_status",
            (_, ReasonKind::UnknownHash) => "unknown_hash",
            (_, ReasonKind::Silent) => "silent",
            (_, ReasonKind::Closes) => "closes",
            (_, ReasonKind::CannotWrite) => "cannot_write",
            (Self::Unreachable, ReasonKind::Errno) => "unreachable",
            (_, ReasonKind::Errno) => "error",
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start a worker for this peer.
    Hire(WorkerId, SocketAddr),
    /// Ask the worker's peer for a block.
    Fetch(WorkerId, u32),
    /// Ask the worker's peer for its map, naming a block that is wanted should it not know maps.
    AskMap(WorkerId, u32),
    /// End a worker.
    Retire(WorkerId),
}

/// What a download does not know when it begins.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Workers in all.
    pub max_workers: usize,
    /// Workers in all where each is the only one of its peer: in a swarm they wait more than they work.
    pub spread: usize,
    /// How many processors there are.
    pub cores: usize,
    /// Whether peers are asked for maps at all.
    pub maps: bool,
    /// Blocks longer than this are written as they come in, so that two workers must never hold one of them.
    pub unshared_above: u64,
    /// Whether a peer that cannot be reached again and again is given up.
    pub gives_up: bool,
}

/// What was asked for in vain.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Waste {
    /// Requests for blocks.
    pub requests: u64,
    /// Those that were answered with "not present", or with a block that had come from elsewhere meanwhile.
    pub in_vain: u64,
}
