use std::hash::RandomState;
use std::net::SocketAddrV4;

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
        (other, "this tracker does not track the file"),
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

proptest! {
    #[test]
    fn the_reply_does_not_depend_on_how_the_input_was_cut(
        command in prop_oneof![Just(Command::List), Just(Command::Subscribe), Just(Command::Unsubscribe)],
        wrong in proptest::option::of((0usize..54, any::<u8>())),
        length in 0usize..80,
        cuts in proptest::collection::vec(0usize..80, 0..6),
    ) {
        let service = service();
        for n in 2..60 {
            let from = format!("192.0.2.{n}:1");
            apply(&service, vec![Change(request(Command::Subscribe, peer(n)))], &from);
        }
        let mut bytes = request(command, peer(9)).encode().to_vec();
        bytes.resize(80, b'x');
        if let Some((at, value)) = wrong {
            bytes[at] = value;
        }
        bytes.truncate(length);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(length)).collect();
        cuts.extend([0, length]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        let whole = converse(&service, &[&bytes]);
        prop_assert_eq!(&converse(&service, &pieces), &whole);
        prop_assert_eq!(&converse(&service, &single), &whole);
    }

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
