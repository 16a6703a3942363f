//! Asking one peer for a cascade file by its hash (WANT_META, PROTOCOL §5): the life of a process of its own.
//!
//! It receives and checks; what has the right hash it leaves in a file of its parent's, which checks it once more.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;

use nix::sys::eventfd::EventFd;

use super::extension::{Conversation, Unanswered};
use crate::cascade_file::CascadeFile;
use crate::hash::CascadeHash;
use crate::sys::child::How;

/// What came of asking. The number is the exit status of the process that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The cascade file is in the parent's file.
    Received = 0,
    /// Something failed on our side.
    Ours = 1,
    /// The peer cannot be connected to.
    Unreachable = 10,
    /// The connection broke, or the peer took too long.
    Broken = 11,
    /// The peer does not have the file.
    UnknownHash = 12,
    /// The peer does not know the extension.
    NoExtension = 13,
    /// What it sent does not have the hash.
    WrongHash = 14,
    /// It announced more than a cascade file may have.
    TooLong = 15,
    /// It answered what nobody asked.
    Nonsense = 16,
    /// What has the hash is no cascade file.
    NoCascadeFile = 17,
    /// It sent less than it announced.
    Short = 18,
    /// It closed the connection, and so does not know the extension, or is no peer.
    Closed = 19,
}

impl Asked {
    const ALL: [Self; 12] = [
        Self::Received,
        Self::Ours,
        Self::Unreachable,
        Self::Broken,
        Self::UnknownHash,
        Self::NoExtension,
        Self::WrongHash,
        Self::TooLong,
        Self::Nonsense,
        Self::NoCascadeFile,
        Self::Short,
        Self::Closed,
    ];

    /// What the end of the process that asked means; one that died is a failure on our side.
    pub fn from_end(how: How) -> Self {
        Self::ALL
            .into_iter()
            .find(|asked| how == How::Exited(*asked as i32))
            .unwrap_or(Self::Ours)
    }

    /// Whether the same peer may do better later.
    pub fn may_change(self) -> bool {
        matches!(
            self,
            Self::Ours | Self::Unreachable | Self::Broken | Self::Short | Self::UnknownHash
        )
    }

    /// A few words about the peer.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Received => "it sent it",
            Self::Ours => "the process that asked it ended",
            Self::Unreachable => "it cannot be reached",
            Self::Broken => "the connection broke, or it took too long",
            Self::Short => "it sent less than it announced",
            Self::UnknownHash => "it does not have the file",
            Self::NoExtension | Self::Closed => "it does not send cascade files",
            Self::WrongHash => "what it sent does not have the hash",
            Self::TooLong => "it announced more than 64 MiB",
            Self::Nonsense => "its answer makes no sense",
            Self::NoCascadeFile => "what has the hash is no cascade file",
        }
    }
}

/// Asks a peer, which may have several addresses, and writes what is right into `to`; says it to `begun` when the answer begins.
pub fn ask(addresses: &[SocketAddr], hash: CascadeHash, mut to: &File, begun: &EventFd) -> Asked {
    let heard = || {
        // It cannot overflow.
        let _ = begun.write(1);
    };
    let answer = Conversation::begin(addresses).and_then(|mut peer| peer.ask_meta(hash, heard));
    match answer {
        Ok(bytes) if CascadeHash::of(&bytes) != hash => Asked::WrongHash,
        Ok(bytes) if CascadeFile::parse(&bytes).is_err() => Asked::NoCascadeFile,
        Ok(bytes) if to.write_all(&bytes).is_err() => Asked::Ours,
        Ok(_) => Asked::Received,
        Err(Unanswered::Unreachable(_)) => Asked::Unreachable,
        Err(Unanswered::Broken(_)) => Asked::Broken,
        Err(Unanswered::Short) => Asked::Short,
        Err(Unanswered::UnknownHash) => Asked::UnknownHash,
        Err(Unanswered::NoExtension) => Asked::NoExtension,
        Err(Unanswered::Closed) => Asked::Closed,
        Err(Unanswered::TooLong(_)) => Asked::TooLong,
        Err(Unanswered::Nonsense(_)) => Asked::Nonsense,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_status_reads_back_and_a_death_is_our_fault() {
        for asked in Asked::ALL {
            assert_eq!(Asked::from_end(How::Exited(asked as i32)), asked);
        }
        assert_eq!(Asked::from_end(How::Exited(70)), Asked::Ours);
    }
}
