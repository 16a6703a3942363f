//! What a node reports to the process that runs it, as small records through a pipe: for `cascade share`.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::SystemTime;

use crate::hash::{CascadeHash, HASH_LEN};
use crate::service::blocks::{BlocksService, BlocksSession, Sent};
use crate::service::{Reports, Service};
use crate::sys::pipe::{Record, Sender};

/// Something that a node tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It listens, on this port.
    Listening(u16),
    /// All of this file is there.
    Complete(CascadeHash),
    /// So many bytes of this file were verified so far.
    Checked(CascadeHash, u64),
    /// It sent a block to this address.
    Sent(IpAddr, Sent),
}

const LISTENING: u8 = 0;
const COMPLETE: u8 = 1;
const SENT: u8 = 2;
const CHECKED: u8 = 3;

impl Record for Told {
    fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Listening(port) => {
                bytes.push(LISTENING);
                bytes.extend_from_slice(&port.to_ne_bytes());
            }
            Self::Complete(hash) => {
                bytes.push(COMPLETE);
                bytes.extend_from_slice(&hash.0);
            }
            Self::Checked(hash, checked) => {
                bytes.push(CHECKED);
                bytes.extend_from_slice(&hash.0);
                bytes.extend_from_slice(&checked.to_ne_bytes());
            }
            Self::Sent(to, sent) => {
                bytes.push(SENT);
                let ip = match to {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => *ip,
                };
                bytes.extend_from_slice(&ip.octets());
                sent.encode(bytes);
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            LISTENING => Some(Self::Listening(u16::from_ne_bytes(rest.try_into().ok()?))),
            COMPLETE => {
                let hash = <[u8; HASH_LEN]>::try_from(rest).ok()?;
                Some(Self::Complete(CascadeHash(hash)))
            }
            CHECKED => {
                let (hash, checked) = rest.split_first_chunk::<HASH_LEN>()?;
                let checked = u64::from_ne_bytes(checked.try_into().ok()?);
                Some(Self::Checked(CascadeHash(*hash), checked))
            }
            SENT => {
                let (ip, rest) = rest.split_first_chunk::<16>()?;
                let ip = IpAddr::from(*ip).to_canonical();
                Some(Self::Sent(ip, Sent::decode(rest)?))
            }
            _ => None,
        }
    }
}

/// Serves blocks, and tells which were sent to whom.
pub struct Witnessed<'a> {
    /// What is served.
    pub blocks: BlocksService<'a>,
    /// Who is told.
    pub to: Arc<Sender<Told>>,
}

impl Service for Witnessed<'_> {
    type Session = BlocksSession;
    const REPORTS: Reports = Reports::Often;

    fn open(&self, _remote: SocketAddr, _now: SystemTime) -> BlocksSession {
        self.blocks.session_that_reports()
    }

    fn apply(&self, remote: SocketAddr, sent: Sent, _now: SystemTime) {
        // Whoever wanted to know is gone, and this process will follow.
        let _ = self.to.send(&Told::Sent(remote.ip(), sent));
    }

    fn reload(&self) -> bool {
        self.blocks.reload()
    }

    fn descriptors(&self) -> Vec<RawFd> {
        self.blocks.descriptors()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_reads_back_and_nothing_shorter_does() {
        let hash = CascadeHash([7; 32]);
        let sent = Sent { hash, block: 9 };
        for told in [
            Told::Listening(8888),
            Told::Complete(hash),
            Told::Checked(hash, u64::MAX),
            Told::Sent("192.0.2.1".parse().expect("an address"), sent),
            Told::Sent("2001:db8::1".parse().expect("an address"), sent),
        ] {
            let mut bytes = Vec::new();
            told.encode(&mut bytes);
            assert_eq!(Told::decode(&bytes), Some(told));
            for cut in 0..bytes.len() {
                assert_eq!(Told::decode(&bytes[..cut]), None);
            }
        }
    }
}
