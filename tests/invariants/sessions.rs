//! A whole connection of each service. The reply does not depend on how the input was cut: neither in the end, nor at
//! any moment before, or somebody would wait for what he has asked for.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs::File;
use std::hash::RandomState;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use cascade::cascade_file::Geometry;
use cascade::hash::CascadeHash;
use cascade::service::blocks::{BlocksService, ServedFile};
use cascade::service::echo::EchoService;
use cascade::service::tracker::TrackerService;
use cascade::service::{Chunk, Next, Outcome, Output, Service, Session};
use cascade::store::bitmap::Bitmap;
use cascade::store::stamp::Stamp;
use cascade::sys::record::Record;
use cascade::tracker::policy::Policy;
use cascade::tracker::registry::{Registry, Tracked};
use cascade::wire::tracker::Response;

use super::{cut, number};

/// When, and from where, clients connect.
const NOW: u32 = 100_000;
const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
struct Talk<R> {
    reply: Vec<u8>,
    reports: Vec<R>,
    outcome: Outcome,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    /// Bytes of the reply, and reports, so far.
    replied: usize,
    reported: usize,
    idle: bool,
    next: Next,
}

/// A connection whose input arrives in pieces, and then ends; with what there was after each piece, by how much of the
/// input had arrived.
fn talk<S: Service>(service: &S, pieces: &[&[u8]]) -> (Talk<Report<S>>, Vec<(usize, Moment)>) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.into());
    let mut session = service.open(SocketAddr::new(REMOTE.into(), 4000), now);
    assert!(session.is_idle(), "nothing has arrived");
    let (mut output, mut reply, mut reports) = (Output::default(), Vec::new(), Vec::new());
    let mut moments = Vec::new();
    let mut arrived = 0;
    for piece in pieces.iter().copied().chain([&b""[..]]) {
        let next = session.receive(piece, &mut output, &mut reports);
        output
            .drain()
            .for_each(|chunk| reply.extend(bytes_of(chunk)));
        arrived += piece.len();
        if let Next::Close(outcome) = next {
            moments.push((arrived, moment(&reply, &reports, true, next)));
            let talk = Talk {
                reply,
                reports,
                outcome,
            };
            return (talk, moments);
        }
        moments.push((arrived, moment(&reply, &reports, session.is_idle(), next)));
    }
    panic!("the end of input ends a session");
}

type Report<S> = <<S as Service>::Session as Session>::Report;

fn moment<R>(reply: &[u8], reports: &[R], idle: bool, next: Next) -> Moment {
    let (replied, reported) = (reply.len(), reports.len());
    Moment {
        replied,
        reported,
        idle,
        next,
    }
}

fn bytes_of(chunk: Chunk) -> Vec<u8> {
    match chunk {
        Chunk::Bytes { bytes, sent } => bytes[sent..].to_vec(),
        Chunk::File { file, range } => {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut bytes, range.start)
                .expect("what is promised is there");
            bytes
        }
    }
}

/// Talks with a stream byte by byte, whole, and as it is cut; it is always the same.
fn talk_however_cut<S: Service>(service: &S, stream: &[u8], pieces: &[&[u8]]) -> Talk<Report<S>>
where
    Report<S>: PartialEq + Debug,
{
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    let (expected, by_byte) = talk(service, &bytes);
    let closed_at = by_byte.iter().find_map(|(arrived, moment)| {
        matches!(moment.next, Next::Close(_)).then_some((*arrived, *moment))
    });
    for pieces in [pieces, &[stream]] {
        let pieces: Vec<&[u8]> = pieces
            .iter()
            .copied()
            .filter(|piece| !piece.is_empty())
            .collect();
        let (talked, moments) = talk(service, &pieces);
        assert_eq!(talked, expected);
        for (arrived, moment) in &moments[..pieces.len().min(moments.len())] {
            // What came after the close in the same piece makes no difference.
            let there = match closed_at {
                Some((at, closed)) if at <= *arrived && at < stream.len() => closed,
                _ => by_byte[arrived - 1].1,
            };
            assert_eq!(*moment, there, "after {arrived} bytes");
        }
    }
    expected
}

/// Every byte comes back, and a line as soon as it is complete.
pub fn echo(input: &[u8]) {
    static SERVICE: LazyLock<EchoService> = LazyLock::new(EchoService::quiet);
    let (stream, pieces) = cut(input);
    let talk = talk_however_cut(&*SERVICE, stream, &pieces);
    assert_eq!(talk.reply, stream);
    assert_eq!(talk.outcome, Outcome::Done);
}

/// The peers that the tracker knows: some of them good, some expired.
static PEERS: LazyLock<Vec<(SocketAddrV4, u32, bool)>> = LazyLock::new(|| {
    (1..=60)
        .map(|n| {
            let good = n % 20 == 0;
            let last_seen = if n % 7 == 0 {
                NOW - 1800
            } else {
                NOW - u32::from(n)
            };
            (
                SocketAddrV4::new([192, 0, 2, n].into(), 80),
                last_seen,
                good,
            )
        })
        .collect()
});
const TRACKED: CascadeHash = CascadeHash([7; 32]);
const TRACKED_ALONE: CascadeHash = CascadeHash([8; 32]);

fn tracker_service() -> TrackerService {
    let policy = Policy {
        tracked: Tracked::Named([TRACKED, TRACKED_ALONE].into()),
        good_ips: PEERS
            .iter()
            .filter(|(.., good)| *good)
            .map(|(peer, ..)| *peer.ip())
            .collect(),
        ban_private: true,
        described: Default::default(),
    };
    let mut registry =
        Registry::new(256, 1800, &policy.tracked, RandomState::new()).expect("memory");
    for (peer, last_seen, good) in &*PEERS {
        let source = IpAddr::V4(*peer.ip());
        registry
            .subscribe(&TRACKED, *peer, source, *good, *last_seen)
            .expect("room");
    }
    TrackerService::new(policy, registry)
}

/// One request, one response; a report only of what was granted, and only of the client's own.
pub fn tracker(input: &[u8]) {
    static SERVICE: LazyLock<TrackerService> = LazyLock::new(tracker_service);
    let (stream, pieces) = cut(input);
    let talk = talk_however_cut(&*SERVICE, stream, &pieces);
    if stream.is_empty() {
        assert_eq!((talk.reply.len(), talk.outcome), (0, Outcome::Done));
        return;
    }
    let response = Response::decode(&talk.reply)
        .expect("a response")
        .expect("all of it");
    assert_eq!(
        response.encode(),
        talk.reply,
        "nothing follows the response"
    );
    let is_request = stream.len() >= 54
        && stream[..8] == *b"CASC\0\0\0\x01"
        && (1..=3).contains(&number(stream, 8, 4))
        && number(stream, 12, 4) == 38;
    let request = is_request.then(|| TrackerRequest {
        command: stream[11],
        hash: &stream[16..48],
        ip: Ipv4Addr::from_bits(number(stream, 48, 4) as u32),
        port: number(stream, 52, 2) as u16,
    });
    let granted = request.as_ref().is_some_and(TrackerRequest::is_granted);
    match response {
        Response::Peers(records) => {
            let request = request
                .as_ref()
                .filter(|_| granted)
                .expect("a request that is granted");
            assert_eq!(talk.outcome, Outcome::Done);
            request.assert_list(&records);
        }
        Response::Refused { status, message } => {
            assert!(status == 1 && !granted, "it is granted");
            assert!(message.ends_with(b"\n") && message.is_ascii());
            let outcome = if is_request {
                Outcome::Refused
            } else {
                Outcome::ProtocolError
            };
            assert_eq!(talk.outcome, outcome);
        }
    }
    let mut reported = Vec::new();
    talk.reports
        .iter()
        .for_each(|report| report.encode(&mut reported));
    let expected = if granted && stream[11] != 1 {
        &stream[..54]
    } else {
        &[]
    };
    assert_eq!(reported, expected);
}

struct TrackerRequest<'a> {
    command: u8,
    hash: &'a [u8],
    ip: Ipv4Addr,
    port: u16,
}

impl TrackerRequest<'_> {
    /// By PROTOCOL §2 and §5, for a client at [`REMOTE`].
    fn is_granted(&self) -> bool {
        let [first, second, ..] = self.ip.octets();
        let private = matches!(
            (first, second),
            (0 | 10 | 127 | 240.., _) | (169, 254) | (172, 16..32) | (192, 168)
        );
        let good = PEERS
            .iter()
            .any(|(peer, _, good)| *good && *peer.ip() == self.ip);
        let tracked = [TRACKED, TRACKED_ALONE]
            .iter()
            .any(|hash| hash.0 == *self.hash);
        let may = match self.command {
            1 => true,
            2 => {
                let reachable = self.port != 0 && !private && !(224..240).contains(&first);
                reachable && (!good || self.ip == REMOTE)
            }
            _ => self.ip == REMOTE,
        };
        tracked && may
    }

    fn assert_list(&self, records: &[cascade::wire::tracker::PeerRecord]) {
        let known = |record: &cascade::wire::tracker::PeerRecord| {
            PEERS.contains(&(record.address, record.last_seen, record.good))
                && record.last_seen > NOW - 1800
                && (*record.address.ip(), record.address.port()) != (self.ip, self.port)
        };
        assert!(records.iter().all(known), "{records:?}");
        let different: BTreeSet<_> = records.iter().map(|record| record.address).collect();
        assert_eq!(different.len(), records.len());
        assert!(records.is_sorted_by_key(|record| !record.good));
        let all = self.hash == TRACKED.0 && self.command != 3;
        assert_eq!(records.len(), if all { 20 } else { 0 });
    }
}

/// A file that is served, and what the protocol makes of it.
struct Kept {
    hash: CascadeHash,
    length: usize,
    block_size: usize,
    /// The bytes of the file that are still there.
    there: usize,
    /// Which blocks were verified.
    verified: fn(usize) -> bool,
    /// Whether somebody has changed the file since.
    changed: bool,
}

/// Whole; in part; cut; empty; changed.
const KEPT: [Kept; 5] = [
    Kept {
        hash: CascadeHash([1; 32]),
        length: 1000,
        block_size: 64,
        there: 1000,
        verified: |_| true,
        changed: false,
    },
    Kept {
        hash: CascadeHash([2; 32]),
        length: 1000,
        block_size: 100,
        there: 1000,
        verified: |n| n % 3 == 1,
        changed: false,
    },
    Kept {
        hash: CascadeHash([3; 32]),
        length: 1000,
        block_size: 70,
        there: 333,
        verified: |_| true,
        changed: false,
    },
    Kept {
        hash: CascadeHash([4; 32]),
        length: 0,
        block_size: 1,
        there: 0,
        verified: |_| true,
        changed: false,
    },
    Kept {
        hash: CascadeHash([5; 32]),
        length: 20,
        block_size: 2,
        there: 20,
        verified: |_| true,
        changed: true,
    },
];
/// What stands for a cascade file: a server does not look into it.
const META: &[u8] = b"the bytes of a cascade file";

impl Kept {
    fn data(&self) -> Vec<u8> {
        (0..self.there).map(|at| ((at * at) >> 3) as u8).collect()
    }

    fn blocks(&self) -> usize {
        self.length.div_ceil(self.block_size)
    }

    fn block(&self, n: usize) -> Option<Vec<u8>> {
        let end = self.length.min((n + 1) * self.block_size);
        let holds = (self.verified)(n) && end <= self.there && !self.changed;
        holds.then(|| self.data()[n * self.block_size..end].to_vec())
    }

    fn map(&self) -> Vec<u8> {
        let mut map = vec![0; self.blocks().div_ceil(8)];
        let held: Vec<usize> = (0..self.blocks())
            .filter(|n| self.block(*n).is_some())
            .collect();
        held.iter().for_each(|n| map[n / 8] |= 0x80 >> (n % 8));
        if held.len() == self.blocks() {
            Vec::new()
        } else {
            map
        }
    }

    fn served(&self) -> ServedFile {
        let file = |bytes: &[u8]| {
            let mut file: File = tempfile::tempfile().expect("a file");
            file.write_all(bytes).expect("written");
            Arc::new(file)
        };
        let geometry =
            Geometry::new(self.length as u64, self.block_size as u64).expect("a geometry");
        let present = Bitmap::new(geometry.blocks()).expect("memory");
        let verified = (0..geometry.blocks()).filter(|n| (self.verified)(*n as usize));
        verified.for_each(|n| present.set(n));
        let stamp = Stamp::new().expect("memory");
        if self.changed {
            stamp.freeze(1);
        }
        ServedFile {
            id: 0,
            hash: self.hash,
            geometry,
            data: file(&self.data()),
            meta: (file(META), META.len() as u64),
            present: Arc::new(present),
            stamp: Arc::new(stamp),
            onlookers: None,
        }
    }
}

/// Each request is answered as PROTOCOL §3 and §5 say, in order, up to the first after which the connection closes.
pub fn blocks(input: &[u8]) {
    static SERVICE: LazyLock<BlocksService> =
        LazyLock::new(|| BlocksService::new(KEPT.iter().map(Kept::served)));
    let (stream, pieces) = cut(input);
    let talk = talk_however_cut(&*SERVICE, stream, &pieces);
    let mut replies = talk.reply.as_slice();
    let outcome = expected_replies(stream, |status, body| {
        assert!(replies.len() >= 9, "a response is missing");
        let length = number(replies, 1, 8) as usize;
        assert_eq!(replies[0], status);
        let found = &replies[9..9 + length];
        match body {
            Some(body) => assert_eq!(found, body),
            None => assert!(found.is_ascii() && found.ends_with(b"\n")),
        }
        replies = &replies[9 + length..];
    });
    assert!(replies.is_empty(), "nothing follows");
    assert_eq!(talk.outcome, outcome);
}

/// Says what is to be answered, a status and a body, or none for any message; and how the connection ends.
fn expected_replies(mut stream: &[u8], mut answer: impl FnMut(u8, Option<&[u8]>)) -> Outcome {
    while !stream.is_empty() {
        let magic = stream.len().min(8);
        if stream[..magic] != b"CASCADE1"[..magic] || stream.len() < 64 {
            answer(4, None);
            return Outcome::ProtocolError;
        }
        let (request, rest) = stream.split_at(64);
        stream = rest;
        let extended = &request[8..12] == b"CSX1";
        let wants = if extended {
            number(request, 12, 4) & 3
        } else {
            0
        };
        if wants == 3 {
            answer(4, None);
            return Outcome::ProtocolError;
        }
        let Some(kept) = KEPT.iter().find(|kept| kept.hash.0 == request[32..]) else {
            answer(1, None);
            return Outcome::Refused;
        };
        let block = number(request, 24, 8);
        let exists = block < kept.blocks() as u64 || wants != 0 && block == 0;
        match wants {
            _ if !exists => {
                answer(3, None);
                return Outcome::Refused;
            }
            1 => answer(5, Some(&kept.map())),
            2 => answer(6, Some(META)),
            _ => match kept.block(block as usize) {
                Some(block) => answer(0, Some(&block)),
                None => answer(2, None),
            },
        }
    }
    Outcome::Done
}
