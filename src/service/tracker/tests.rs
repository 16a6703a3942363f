use std::hash::RandomState;
use std::net::SocketAddrV4;
use std::time::Instant;

use fastrand::Rng;
use proptest::prelude::*;

use super::*;
use crate::hash::CascadeHash;
use crate::service::Chunk;
use crate::tracker::registry::Tracked;
use crate::wire::tracker::{NOBODY, PeerRecord};

const HASH: CascadeHash = CascadeHash([7; 32]);
const REMOTE: &str = "192.0.2.9:4000";

fn service() -> TrackerService {
    let policy = Policy {
        tracked: Tracked::Named([HASH].into()),
        good_ips: [[192, 0, 2, 1].into()].into(),
        ban_private: false,
        described: Default::default(),
    };
    let registry = Registry::new(64, 1800, &policy.tracked, RandomState::new()).expect("memory");
    TrackerService::new(policy, registry)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn peer(n: u8) -> SocketAddrV4 {
    SocketAddrV4::new([192, 0, 2, n].into(), 80)
}

fn request(command: Command, peer: SocketAddrV4) -> Request {
    Request {
        command,
        hash: HASH,
        peer,
    }
}

/// Feeds a session, then ends its input, as a driver would; what it sent, reported and how it ended.
fn converse(service: &TrackerService, pieces: &[&[u8]]) -> (Vec<u8>, Vec<Change>, Outcome) {
    let mut session = service.open(REMOTE.parse().expect("an address"), at(1000));
    session.rng = Rng::with_seed(1);
    let (mut output, mut reports) = (Output::default(), Vec::new());
    let mut next = Next::Read;
    for piece in pieces
        .iter()
        .filter(|piece| !piece.is_empty())
        .chain([&&b""[..]])
    {
        if next == Next::Read {
            next = session.receive(piece, &mut output, &mut reports);
        }
    }
    let sent = output
        .drain()
        .flat_map(|chunk| match chunk {
            Chunk::Bytes { bytes, .. } => bytes,
            Chunk::File { .. } => panic!("a tracker sends no file"),
        })
        .collect();
    let Next::Close(outcome) = next else {
        panic!("the end of input ends the session");
    };
    (sent, reports, outcome)
}

fn ask(service: &TrackerService, request: &Request) -> (Response, Vec<Change>, Outcome) {
    let (sent, reports, outcome) = converse(service, &[&request.encode()]);
    let response = Response::decode(&sent)
        .expect("a response")
        .expect("all of it");
    assert_eq!(response.encode(), sent, "nothing follows the response");
    (response, reports, outcome)
}

fn apply(service: &TrackerService, reports: Vec<Change>, from: &str) {
    for report in reports {
        service.apply(from.parse().expect("an address"), report, at(1000));
    }
}

fn refusal(response: &Response) -> String {
    match response {
        Response::Refused { status: 1, message } => {
            let text = String::from_utf8(message.clone()).expect("text");
            assert!(text.ends_with('\n'), "{text:?}");
            text.trim_end().to_owned()
        }
        other => panic!("not a refusal: {other:?}"),
    }
}

#[test]
fn a_subscriber_is_reported_listed_and_forgotten_on_demand() {
    let service = service();
    let own = peer(9);
    let (response, reports, outcome) = ask(&service, &request(Command::Subscribe, own));
    assert_eq!(
        (response, outcome),
        (Response::Peers(vec![]), Outcome::Done)
    );
    apply(&service, reports, REMOTE);
    let record = PeerRecord {
        address: own,
        last_seen: 1000,
        good: false,
    };
    let (response, reports, _) = ask(&service, &request(Command::List, NOBODY));
    assert_eq!((response, reports), (Response::Peers(vec![record]), vec![]));
    // Whoever asks is left out of its own list.
    assert_eq!(
        ask(&service, &request(Command::Subscribe, own)).0,
        Response::Peers(vec![])
    );
    let (response, reports, outcome) = ask(&service, &request(Command::Unsubscribe, own));
    assert_eq!(
        (response, outcome),
        (Response::Peers(vec![]), Outcome::Done)
    );
    apply(&service, reports, REMOTE);
    assert_eq!(
        ask(&service, &request(Command::List, NOBODY)).0,
        Response::Peers(vec![])
    );
}

#[test]
fn what_is_refused_is_said_and_not_reported() {
    let service = service();
    let other = Request {
        hash: CascadeHash([8; 32]),
        ..request(Command::List, NOBODY)
    };
    for (request, reason) in [
        (
            other,
            "this tracker does not track the file; add its cascade file there, or start it with --open",
        ),
        (
            request(Command::Subscribe, NOBODY),
            "nobody can connect to port 0",
        ),
        (
            request(Command::Subscribe, peer(1)),
            "192.0.2.1 can be registered from this address only",
        ),
        (
            request(Command::Unsubscribe, peer(1)),
            "192.0.2.1 can be removed from this address only",
        ),
    ] {
        let (response, reports, outcome) = ask(&service, &request);
        assert_eq!(refusal(&response), reason);
        assert_eq!((reports, outcome), (vec![], Outcome::Refused));
    }
}

#[test]
fn the_owner_believes_no_report_that_it_can_check() {
    let service = service();
    // A rogue child: good, not its own; another's removal.
    for (command, n) in [
        (Command::Subscribe, 1),
        (Command::Subscribe, 3),
        (Command::Unsubscribe, 3),
    ] {
        apply(&service, vec![Change(request(command, peer(n)))], REMOTE);
    }
    let (response, ..) = ask(&service, &request(Command::List, NOBODY));
    let Response::Peers(peers) = response else {
        panic!("not a list: {response:?}");
    };
    assert_eq!(
        peers.iter().map(|peer| peer.address).collect::<Vec<_>>(),
        [peer(3)]
    );
}

#[test]
fn what_is_no_request_is_answered_with_a_message() {
    let service = service();
    let whole = request(Command::List, NOBODY).encode();
    for (bytes, reason) in [
        (
            &b"GET / HTTP/1.0\r\n\r\n"[..],
            "not a request of the tracker protocol",
        ),
        (&whole[..53], "the request ends too early"),
        (&whole[..1], "the request ends too early"),
        (
            &b"CASC\0\0\0\x02\0\0\0\x01\0\0\0\x26"[..],
            "protocol version 2 is not known here, only 1",
        ),
    ] {
        let (sent, reports, outcome) = converse(&service, &[bytes]);
        let response = Response::decode(&sent)
            .expect("a response")
            .expect("all of it");
        assert_eq!(refusal(&response), reason);
        assert_eq!((reports, outcome), (vec![], Outcome::ProtocolError));
    }
}

#[test]
fn a_client_that_says_nothing_is_answered_nothing() {
    let (sent, reports, outcome) = converse(&service(), &[]);
    assert_eq!((sent, reports, outcome), (vec![], vec![], Outcome::Done));
}

/// A service whose registry has so many peers of a thousand files, each from its own address, last seen at second 0.
fn filled(peers: u32) -> TrackerService {
    let files: Vec<_> = (0..1000u32)
        .map(|n| CascadeHash::of(&n.to_be_bytes()))
        .collect();
    let policy = Policy {
        tracked: Tracked::Named(files.iter().copied().collect()),
        good_ips: Default::default(),
        ban_private: false,
        described: Default::default(),
    };
    let mut registry =
        Registry::new(peers, 1800, &policy.tracked, RandomState::new()).expect("memory");
    for n in 0..peers {
        let peer = SocketAddrV4::new((0x0a00_0000 + n).into(), 80);
        registry
            .subscribe(
                &files[n as usize % files.len()],
                peer,
                IpAddr::V4(*peer.ip()),
                false,
                0,
            )
            .expect("room");
    }
    TrackerService::new(policy, registry)
}

/// Lets all peers expire at once, and the owner's clock run; answers how long each call of it took.
fn expire_all(service: &TrackerService) -> Vec<Duration> {
    let view = service.current().view;
    let begin = at(1800);
    let mut now = begin;
    let mut took = Vec::new();
    while !view.is_empty() {
        let before = view.len();
        let clock = Instant::now();
        let wait = service.tick(now, Apart::InThread);
        took.push(clock.elapsed());
        let forgotten = before - view.len();
        assert!(forgotten <= 256, "{forgotten} at once");
        now += wait;
        let since = now.duration_since(begin).expect("later");
        assert!(since <= Duration::from_secs(125), "they stay too long");
    }
    took
}

#[test]
fn many_peers_that_expire_at_once_are_forgotten_a_few_at_a_time() {
    expire_all(&filled(20_000));
}

/// Another policy, which refuses half of the files, knows new ones, and half of all addresses as good.
fn adopt_another(service: &TrackerService) -> Vec<Duration> {
    let before = service.current();
    let Tracked::Named(files) = &before.policy.tracked else {
        panic!("they are named");
    };
    let kept = files.iter().step_by(2).copied();
    let new = (5000..5100u32).map(|n| CascadeHash::of(&n.to_be_bytes()));
    let policy = Policy {
        tracked: Tracked::Named(kept.chain(new).collect()),
        good_ips: [[10, 0, 0, 1].into()].into(),
        ban_private: false,
        described: Default::default(),
    };
    let gone = *files.iter().nth(1).expect("a file");
    let peers = before.view.len();
    let mut now = at(1);
    let clock = Instant::now();
    assert!(service.adopt(policy, now).expect("memory"));
    let mut took = vec![clock.elapsed()];
    // At once for whoever asks.
    let list = |hash| Request {
        hash,
        ..request(Command::List, NOBODY)
    };
    let (response, ..) = ask(service, &list(gone));
    assert_eq!(
        refusal(&response),
        "this tracker does not track the file; add its cascade file there, or start it with --open"
    );
    let view = service.current().view;
    while view.len() > peers / 2 {
        let before = view.len();
        let clock = Instant::now();
        now += service.tick(now, Apart::InThread);
        took.push(clock.elapsed());
        assert!(before - view.len() <= 256, "too many at once");
        let since = now.duration_since(at(1)).expect("later");
        assert!(since <= Duration::from_secs(60), "they stay too long");
    }
    assert_eq!(view.len(), peers / 2);
    took
}

#[test]
fn what_another_policy_refuses_is_forgotten_a_little_at_a_time() {
    adopt_another(&filled(20_000));
}

#[test]
#[ignore = "measures: make scale"]
fn a_million_peers_are_under_another_policy_without_a_pause() {
    let mut took = adopt_another(&filled(1_000_000));
    let first = took.remove(0);
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!(
        "another policy: {first:?}; then {} calls of the owner's clock: median {:?}, 99 % within {:?}, longest {:?}",
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert!(
        first < Duration::from_millis(100) && at(0.5) < Duration::from_millis(1),
        "clients wait"
    );
}

#[test]
#[ignore = "measures: make scale"]
fn a_million_peers_expire_without_a_pause() {
    let mut took = expire_all(&filled(1_000_000));
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!(
        "{} calls of the owner's clock: median {:?}, 99 % within {:?}, longest {:?}",
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    // The longest ones are those in which something else had the processor.
    assert!(at(0.5) < Duration::from_millis(1), "clients wait");
}

proptest! {
    #[test]
    fn reports_are_read_back_and_nothing_else_is_one(bytes: Vec<u8>, n: u8, more: u8) {
        let report = Change(request(Command::Subscribe, peer(n)));
        let mut packet = Vec::new();
        report.encode(&mut packet);
        prop_assert_eq!(Change::decode(&packet), Some(report));
        packet.push(more);
        prop_assert_eq!(Change::decode(&packet), None);
        prop_assert_eq!(Change::decode(&bytes), None);
        prop_assert_eq!(Change::decode(&request(Command::List, NOBODY).encode()), None);
    }
}
