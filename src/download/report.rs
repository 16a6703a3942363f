//! What workers tell the downloader, and what it tells them: small fixed-size records through pipes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::plan::{Failure, WorkerId};
use super::reason::{Reason, ReasonKind};
use super::worker::path::Path;
use crate::hash::{FileHash, HASH_LEN};
use crate::sys::record::Record;
use crate::wire::peer::Status;

/// The most blocks of one report.
pub const MAX_FETCHED: usize = 64;

/// A report of a child of the downloader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A worker has something to say.
    Worker(WorkerId, WorkerReport),
    /// The hash of the whole file.
    WholeFile(FileHash),
    /// The whole file could not be read; an errno.
    WholeFileFailed(i32),
}

/// What a worker has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerReport {
    /// These blocks are verified and written: at most [`MAX_FETCHED`].
    Fetched(Vec<u32>),
    /// The peer does not have the block yet.
    Absent(u32),
    /// The block was present before it was asked for.
    Skipped(u32),
    /// The peer's map is in the worker's shared memory; this block was named for it, and not sent.
    Map(u32),
    /// The peer does not know maps.
    NoMap,
    /// The header of a response has arrived that is one of this network. Said until a block was fetched.
    Began,
    /// The path to the peer, whenever it has changed.
    Path(Path),
    /// The worker gives up its peer, and ends.
    Failed(Failure, Reason),
}

/// Why a worker gives up its peer, or itself.
#[derive(Debug)]
pub struct GiveUp(pub Failure, pub Reason);

impl GiveUp {
    /// The peer said something that makes no sense.
    pub fn lied(kind: ReasonKind, number: u32) -> Self {
        Self(Failure::Lied, Reason::new(kind, number))
    }

    /// The peer answered this block with a status that makes no sense.
    pub fn wrong_status(block: u32, status: Status) -> Self {
        let reason = Reason {
            kind: ReasonKind::WrongStatus,
            number: block,
            code: u8::from(status).into(),
        };
        Self(Failure::Lied, reason)
    }
}

const FETCHED: u8 = 0;
const ABSENT: u8 = 1;
const SKIPPED: u8 = 2;
const MAP: u8 = 3;
const NO_MAP: u8 = 4;
const FAILED: u8 = 5;
const WHOLE_FILE: u8 = 6;
const WHOLE_FILE_FAILED: u8 = 7;
const BEGAN: u8 = 8;
const PATH: u8 = 9;

const FAILURES: [Failure; 6] = [
    Failure::Unreachable,
    Failure::Silent,
    Failure::UnknownHash,
    Failure::Lied,
    Failure::Ours,
    Failure::Shortage,
];

impl Record for Report {
    fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::WholeFile(hash) => {
                bytes.push(WHOLE_FILE);
                bytes.extend_from_slice(&hash.0);
            }
            Self::WholeFileFailed(errno) => {
                bytes.push(WHOLE_FILE_FAILED);
                bytes.extend_from_slice(&errno.to_ne_bytes());
            }
            Self::Worker(worker, report) => {
                let (kind, number) = match report {
                    WorkerReport::Path(path) => {
                        bytes.push(PATH);
                        bytes.extend_from_slice(&worker.to_ne_bytes());
                        let micros = path.round_trip.as_micros() as u64;
                        bytes.extend_from_slice(&micros.to_ne_bytes());
                        bytes.extend_from_slice(&path.bytes.to_ne_bytes());
                        return;
                    }
                    WorkerReport::Fetched(blocks) => {
                        bytes.push(FETCHED);
                        bytes.extend_from_slice(&worker.to_ne_bytes());
                        bytes.extend(blocks.iter().flat_map(|block| block.to_ne_bytes()));
                        return;
                    }
                    WorkerReport::Absent(block) => (ABSENT, *block),
                    WorkerReport::Skipped(block) => (SKIPPED, *block),
                    WorkerReport::Map(block) => (MAP, *block),
                    WorkerReport::NoMap => (NO_MAP, 0),
                    WorkerReport::Began => (BEGAN, 0),
                    WorkerReport::Failed(_, reason) => (FAILED, reason.number),
                };
                bytes.push(kind);
                bytes.extend_from_slice(&worker.to_ne_bytes());
                bytes.extend_from_slice(&number.to_ne_bytes());
                if let WorkerReport::Failed(failure, reason) = report {
                    let code = FAILURES
                        .iter()
                        .position(|known| known == failure)
                        .unwrap_or(0);
                    bytes.extend_from_slice(&[code as u8, reason.kind as u8]);
                    bytes.extend_from_slice(&reason.code.to_ne_bytes());
                }
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            WHOLE_FILE => {
                return Some(Self::WholeFile(FileHash(
                    <[u8; HASH_LEN]>::try_from(rest).ok()?,
                )));
            }
            WHOLE_FILE_FAILED => {
                return Some(Self::WholeFileFailed(i32::from_ne_bytes(
                    rest.try_into().ok()?,
                )));
            }
            _ => {}
        }
        let (worker, rest) = rest.split_first_chunk()?;
        if *kind == FETCHED {
            let (blocks, rest) = rest.as_chunks();
            let blocks = blocks.iter().map(|bytes| u32::from_ne_bytes(*bytes));
            let report = WorkerReport::Fetched(blocks.collect());
            return rest
                .is_empty()
                .then_some(Self::Worker(WorkerId::from_ne_bytes(*worker), report));
        }
        if *kind == PATH {
            let (micros, bytes) = rest.split_first_chunk()?;
            let report = WorkerReport::Path(Path {
                round_trip: Duration::from_micros(u64::from_ne_bytes(*micros)),
                bytes: u64::from_ne_bytes(bytes.try_into().ok()?),
            });
            return Some(Self::Worker(WorkerId::from_ne_bytes(*worker), report));
        }
        let (number, rest) = rest.split_first_chunk()?;
        let (worker, number) = (
            WorkerId::from_ne_bytes(*worker),
            u32::from_ne_bytes(*number),
        );
        let report = match *kind {
            ABSENT => WorkerReport::Absent(number),
            SKIPPED => WorkerReport::Skipped(number),
            MAP => WorkerReport::Map(number),
            NO_MAP => WorkerReport::NoMap,
            BEGAN => WorkerReport::Began,
            FAILED => {
                let ([failure, reason], code) = rest.split_first_chunk()?;
                let failure = *FAILURES.get(usize::from(*failure))?;
                let kind = *ReasonKind::ALL.get(usize::from(*reason))?;
                let code = i32::from_ne_bytes(code.try_into().ok()?);
                WorkerReport::Failed(failure, Reason { kind, number, code })
            }
            _ => return None,
        };
        Some(Self::Worker(worker, report))
    }
}

/// What the downloader tells a worker: to ask for a block, and whether for the map with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerOrder {
    /// The block.
    pub block: u32,
    /// Ask for the map, naming the block.
    pub map: bool,
}

impl WorkerOrder {
    /// Bytes of an order in the pipe.
    pub const LEN: usize = 5;

    /// The bytes of the order.
    pub fn encode(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = self.block.to_ne_bytes();
        [a, b, c, d, self.map.into()]
    }

    /// Reads an order.
    pub fn decode(bytes: [u8; Self::LEN]) -> Self {
        let [a, b, c, d, map] = bytes;
        Self {
            block: u32::from_ne_bytes([a, b, c, d]),
            map: map != 0,
        }
    }
}

/// A peer of a tracker's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Where it listens.
    pub address: SocketAddr,
    /// The operator of the tracker vouches for it.
    pub good: bool,
    /// Its place in the list, the first being 0: trackers name those first that they trust most.
    pub place: u8,
    /// When the tracker heard of it last, by the tracker's clock; 0 where that is not known.
    pub last_seen: u32,
}

/// What an announcer tells the downloader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A tracker names this peer.
    Peer(Listed),
    /// The tracker was told that this node is found here.
    Own(SocketAddr),
}

impl Record for Heard {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let (kind, address, place, seen) = match self {
            Self::Peer(listed) => (
                u8::from(listed.good),
                &listed.address,
                listed.place,
                listed.last_seen,
            ),
            Self::Own(address) => (OWN, address, 0, 0),
        };
        bytes.push(kind);
        let ip = match address.ip().to_canonical() {
            IpAddr::V4(ip) => ip,
            // Tracker records are IPv4; nothing else is ever found.
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        bytes.extend_from_slice(&ip.octets());
        bytes.extend_from_slice(&address.port().to_be_bytes());
        bytes.push(place);
        bytes.extend_from_slice(&seen.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (rest, seen) = bytes.split_last_chunk::<4>()?;
        let [kind, a, b, c, d, high, low, place] = *rest else {
            return None;
        };
        let port = u16::from_be_bytes([high, low]);
        let address = (Ipv4Addr::new(a, b, c, d), port).into();
        match kind {
            _ if port == 0 => None,
            OWN => Some(Self::Own(address)),
            _ => Some(Self::Peer(Listed {
                address,
                good: kind != 0,
                place,
                last_seen: u32::from_be_bytes(*seen),
            })),
        }
    }
}

/// What a record of [`Heard`] begins with that is about this node; 0 or 1, whether it is good, in one about a peer.
const OWN: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_report_reads_back() {
        let mut reports = vec![
            Report::WholeFile(FileHash([7; 32])),
            Report::WholeFileFailed(5),
        ];
        for report in [
            WorkerReport::Fetched(vec![]),
            WorkerReport::Fetched(vec![1]),
            WorkerReport::Fetched((0..MAX_FETCHED as u32).collect()),
            WorkerReport::Absent(2),
            WorkerReport::Skipped(3),
            WorkerReport::Map(4),
            WorkerReport::NoMap,
            WorkerReport::Began,
            WorkerReport::Path(Path {
                round_trip: Duration::from_micros(1234),
                bytes: 1 << 33,
            }),
        ] {
            reports.push(Report::Worker(9, report));
        }
        for failure in FAILURES {
            for kind in ReasonKind::ALL {
                let reason = Reason {
                    kind,
                    number: 77,
                    code: 28,
                };
                reports.push(Report::Worker(
                    u32::MAX,
                    WorkerReport::Failed(failure, reason),
                ));
            }
        }
        for report in reports {
            let mut bytes = Vec::new();
            report.encode(&mut bytes);
            assert!(bytes.len() <= crate::sys::record::MAX_RECORD);
            assert_eq!(Report::decode(&bytes), Some(report));
            for cut in 0..bytes.len() {
                let _ = Report::decode(&bytes[..cut]);
            }
        }
    }

    #[test]
    fn orders_and_found_peers_read_back() {
        let order = WorkerOrder {
            block: 0x0102_0304,
            map: true,
        };
        assert_eq!(WorkerOrder::decode(order.encode()), order);
        let address = "192.0.2.1:80".parse().expect("an address");
        let listed = |good, place| Listed {
            address,
            good,
            place,
            last_seen: 0,
        };
        for heard in [
            Heard::Peer(listed(false, 0)),
            Heard::Peer(listed(true, 199)),
            Heard::Own(address),
        ] {
            let mut bytes = Vec::new();
            heard.encode(&mut bytes);
            assert_eq!(Heard::decode(&bytes), Some(heard));
        }
    }
}
