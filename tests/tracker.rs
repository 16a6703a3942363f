//! `cascade tracker` and `cascade list`, as a user runs them.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cascade::hash::CascadeHash;
use cascade::wire::tracker::{Command as Verb, NOBODY, PeerRecord, Request, Response};
use common::eventually;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use nix::unistd::Pid;

const HASH: CascadeHash = CascadeHash([0xab; 32]);
/// Far beyond what any of this takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn cascade() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
    command.env_remove("CASCADE_TRACKER");
    command
}

/// A tracker that runs; it is killed when the test forgets it.
struct Tracker {
    child: Child,
    address: SocketAddr,
}

impl Tracker {
    /// Starts a tracker on a free port of the loopback address.
    fn start(arguments: &[&str]) -> Self {
        Self::run(&[&["-l", "127.0.0.1:0"], arguments].concat())
    }

    fn run(arguments: &[&str]) -> Self {
        let mut child = cascade()
            .arg("tracker")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line
            .trim_end()
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("not listening: {line:?} {:?}", child.wait()));
        let mut address: SocketAddr = address.parse().expect("an address");
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        Self { child, address }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Asks it to stop, which it does with status 0; answers its log.
    fn stop(mut self) -> String {
        kill(self.pid(), Signal::SIGTERM).expect("a signal");
        let status = self.child.wait().expect("an end");
        let mut log = String::new();
        let stderr = self.child.stderr.as_mut().expect("a pipe");
        stderr.read_to_string(&mut log).expect("a log");
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }

    fn ask(&self, request: &Request) -> Response {
        exchange(
            TcpStream::connect(self.address).expect("a connection"),
            &request.encode(),
        )
    }

    fn ask_from(&self, source: [u8; 4], request: &Request) -> Response {
        exchange(connect_from(source, self.address), &request.encode())
    }

    fn list(&self) -> Vec<PeerRecord> {
        peers(self.ask(&request(Verb::List, NOBODY)))
    }

    fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.list().iter().map(|peer| peer.address.port()).collect();
        ports.sort_unstable();
        ports
    }

    /// The processes that it has, zombies as well.
    fn children(&self) -> Vec<String> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.expect("the tracker runs");
        children.split_whitespace().map(str::to_owned).collect()
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends all at once, reads to the end: the tracker closes.
fn exchange(mut stream: TcpStream, bytes: &[u8]) -> Response {
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    stream.write_all(bytes).expect("a write");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("a response");
    whole_response(&received)
}

fn whole_response(bytes: &[u8]) -> Response {
    let response = Response::decode(bytes)
        .expect("a response")
        .unwrap_or_else(|| panic!("cut: {bytes:?}"));
    assert_eq!(response.encode(), bytes, "something follows the response");
    response
}

/// Connects from another address of this machine: 127.0.0.0/8 are all its own.
fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let fd: OwnedFd = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .expect("a socket");
    let [a, b, c, d] = source;
    bind(fd.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).expect("an address");
    let IpAddr::V4(ip) = to.ip() else {
        panic!("IPv4 only: {to}");
    };
    let to = SockaddrIn::from(SocketAddrV4::new(ip, to.port()));
    connect(fd.as_raw_fd(), &to).expect("a connection");
    fd.into()
}

fn request(command: Verb, peer: SocketAddrV4) -> Request {
    Request {
        command,
        hash: HASH,
        peer,
    }
}

fn subscribe(port: u16) -> Request {
    request(Verb::Subscribe, local(port))
}

fn local(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

fn peers(response: Response) -> Vec<PeerRecord> {
    match response {
        Response::Peers(peers) => peers,
        refused => panic!("refused: {refused:?}"),
    }
}

/// The message of a refusal, which ends with a newline.
fn refusal(response: Response) -> String {
    let Response::Refused { status: 1, message } = response else {
        panic!("not refused: {response:?}");
    };
    let message = String::from_utf8(message).expect("text");
    message.strip_suffix('\n').expect("a line").to_owned()
}

fn hex() -> String {
    HASH.to_string()
}

/// Runs a command that is expected to end by itself.
fn end_of(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("a process");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

fn list_command(tracker: &Tracker, target: &str) -> (Option<i32>, String, String) {
    let address = tracker.address.to_string();
    end_of(cascade().args(["list", "-t", &address, target]))
}

#[test]
fn a_subscriber_is_visible_to_the_very_next_client_1000_times() {
    let tracker = Tracker::start(&["--open"]);
    for n in 0..1000u16 {
        let hash = CascadeHash::of(&n.to_be_bytes());
        let peer = local(n + 1);
        let mut stream = TcpStream::connect(tracker.address).expect("a connection");
        let subscribe = Request {
            command: Verb::Subscribe,
            hash,
            peer,
        };
        stream.write_all(&subscribe.encode()).expect("a write");
        // The reply is what counts, not the close.
        stream.read_exact(&mut [0; 5]).expect("a reply");
        let listed = tracker.ask(&Request {
            command: Verb::List,
            hash,
            peer: NOBODY,
        });
        let addresses: Vec<_> = peers(listed).iter().map(|peer| peer.address).collect();
        assert_eq!(addresses, [peer], "client {n}");
    }
    eventually("no child is left", || tracker.children().is_empty());
    let log = tracker.stop();
    assert!(log.contains("2000 connections: done 2000"), "{log}");
}

#[test]
fn a_subscriber_leaves_when_it_says_so_and_only_then() {
    let tracker = Tracker::start(&[&hex()]);
    assert_eq!(peers(tracker.ask(&subscribe(1))), []);
    assert_eq!(tracker.ports(), [1]);
    assert_eq!(peers(tracker.ask(&subscribe(2))).len(), 1);
    let leave = request(Verb::Unsubscribe, local(1));
    assert_eq!(
        refusal(tracker.ask_from([127, 0, 0, 2], &leave)),
        "127.0.0.1 can be removed from this address only"
    );
    assert_eq!(tracker.ports(), [1, 2]);
    assert_eq!(peers(tracker.ask(&leave)), []);
    assert_eq!(tracker.ports(), [2]);
}

#[test]
fn what_is_refused_is_said() {
    let tracker = Tracker::start(&[&hex()]);
    let other = Request {
        hash: CascadeHash([1; 32]),
        ..subscribe(1)
    };
    assert_eq!(
        refusal(tracker.ask(&other)),
        "this tracker does not track the file; add its cascade file there, or start it with --open"
    );
    assert_eq!(
        refusal(tracker.ask(&subscribe(0))),
        "nobody can connect to port 0"
    );
    let multicast = SocketAddrV4::new([224, 0, 0, 1].into(), 80);
    assert_eq!(
        refusal(tracker.ask(&request(Verb::Subscribe, multicast))),
        "nobody can connect to 224.0.0.1"
    );
    assert_eq!(tracker.list(), []);
}

#[test]
fn the_configuration_in_use_is_read_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.json");
    let text = format!(
        r#"{{"port": 0, "allowedhashes": ["{}"], "good-ips": ["127.0.0.1", "192.0.2.1"],
            "ban-private": false, "comment": "other programs have other keys"}}"#,
        hex().to_uppercase()
    );
    fs::write(&path, text).expect("a file");
    let path = path.to_str().expect("text");
    let tracker = Tracker::run(&["-c", path]);
    tracker.ask(&subscribe(1));
    tracker.ask_from(
        [127, 0, 0, 2],
        &request(Verb::Subscribe, SocketAddrV4::new([10, 1, 1, 1].into(), 2)),
    );
    let listed = tracker.list();
    assert_eq!(
        listed
            .iter()
            .map(|peer| (peer.address.port(), peer.good))
            .collect::<Vec<_>>(),
        [(1, true), (2, false)]
    );
    for (peer, source) in [
        ([127, 0, 0, 1], [127, 0, 0, 2]),
        ([192, 0, 2, 1], [127, 0, 0, 1]),
    ] {
        let stranger = request(Verb::Subscribe, SocketAddrV4::new(peer.into(), 3));
        let refused = refusal(tracker.ask_from(source, &stranger));
        assert!(
            refused.ends_with("can be registered from this address only"),
            "{refused}"
        );
    }
}

#[test]
fn ban_private_refuses_private_addresses() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.json");
    fs::write(&path, r#"{"ban-private": true}"#).expect("a file");
    let tracker = Tracker::start(&["-c", path.to_str().expect("text"), &hex()]);
    assert_eq!(
        refusal(tracker.ask(&subscribe(1))),
        "127.0.0.1 is a private address, which this tracker does not take"
    );
    let public = request(Verb::Subscribe, SocketAddrV4::new([192, 0, 2, 1].into(), 1));
    assert_eq!(peers(tracker.ask(&public)), []);
    assert_eq!(tracker.ports(), [1]);
}

#[test]
fn a_wrong_configuration_is_an_error_that_names_the_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.json");
    fs::write(&path, r#"{"good-ips": ["nowhere"]}"#).expect("a file");
    let (status, stdout, stderr) = end_of(cascade().args(["tracker", "--open", "-c"]).arg(&path));
    assert_eq!((status, stdout.as_str()), (Some(2), ""));
    assert!(
        stderr.starts_with("cascade: cannot understand ")
            && stderr.contains("'good-ips' has an entry 'nowhere'")
            && stderr.lines().count() == 1,
        "{stderr}"
    );
}

#[test]
fn a_tracker_with_nothing_to_track_is_a_usage_error() {
    let (status, _, stderr) = end_of(cascade().args(["tracker", "-l", "127.0.0.1:0"]));
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("--open"), "{stderr}");
    let (status, _, stderr) = end_of(cascade().args(["tracker", "--open", "--ttl", "0"]));
    assert_eq!(status, Some(2), "{stderr}");
}

#[test]
fn nobody_fills_the_registry_alone() {
    let tracker = Tracker::start(&["--max-peers", "4", &hex()]);
    for port in 1..=2 {
        peers(tracker.ask(&subscribe(port)));
    }
    assert_eq!(
        refusal(tracker.ask(&subscribe(3))),
        "too many peers are registered from your address"
    );
    for port in 3..=4 {
        peers(tracker.ask_from([127, 0, 0, 2], &subscribe(port)));
    }
    assert_eq!(
        refusal(tracker.ask_from([127, 0, 0, 3], &subscribe(5))),
        "the registry is full"
    );
    // A renewal needs no room.
    peers(tracker.ask(&subscribe(1)));
    assert_eq!(tracker.ports(), [1, 2, 3, 4]);
}

#[test]
fn a_peer_that_is_not_renewed_is_forgotten() {
    let tracker = Tracker::start(&["--ttl", "3", "--max-peers", "1", &hex()]);
    peers(tracker.ask(&subscribe(1)));
    assert_eq!(tracker.ports(), [1]);
    eventually("the peer has expired", || tracker.list().is_empty());
    // Its place is free as soon as the sweep has come by.
    eventually("there is room again", || {
        matches!(tracker.ask(&subscribe(2)), Response::Peers(_))
    });
    assert_eq!(tracker.ports(), [2]);
}

#[test]
fn the_state_survives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state");
    let arguments = ["--state", path.to_str().expect("text"), &hex()];
    let tracker = Tracker::start(&arguments);
    peers(tracker.ask(&subscribe(1)));
    let before = tracker.list();
    tracker.stop();
    let tracker = Tracker::start(&arguments);
    assert_eq!(tracker.list(), before);
    // What was left out is said where there is something.
    let log = tracker.stop();
    assert!(log.contains("/state: 1 peer\n"), "{log}");
    // A hash that is not tracked any more takes its peers along.
    let tracker = Tracker::start(&["--state", path.to_str().expect("text"), &"cd".repeat(32)]);
    refusal(tracker.ask(&subscribe(1)));
    let log = tracker.stop();
    let left_out = "/state: 0 peers; left out, because not allowed any more: 1\n";
    assert!(log.contains(left_out), "{log}");
    assert!(
        fs::read_to_string(&path)
            .expect("a file")
            .ends_with("\nend 0\n")
    );
}

#[test]
fn a_garbled_state_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state");
    let text = "cascade tracker state 1\nmy shopping list\nend 1\n";
    fs::write(&path, text).expect("a file");
    let (status, stdout, stderr) = end_of(
        cascade()
            .args(["tracker", "-l", "127.0.0.1:0", "--open", "--state"])
            .arg(&path),
    );
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert_eq!(
        stderr,
        format!(
            "cascade: cannot understand {}:2: there is no hash\n",
            path.display()
        )
    );
    assert_eq!(fs::read_to_string(&path).expect("a file"), text);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let tracker = Tracker::start(&[&hex()]);
    let mut stream = TcpStream::connect(tracker.address).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    for byte in subscribe(1).encode() {
        stream.write_all(&[byte]).expect("a write");
    }
    assert_eq!(peers(exchange(stream, b"")), []);
    assert_eq!(tracker.ports(), [1]);
}

#[test]
fn of_two_requests_the_first_is_answered() {
    let tracker = Tracker::start(&[&hex()]);
    let stream = TcpStream::connect(tracker.address).expect("a connection");
    let both = [subscribe(1).encode(), subscribe(2).encode()].concat();
    assert_eq!(peers(exchange(stream, &both)), []);
    assert_eq!(tracker.ports(), [1]);
}

#[test]
fn what_is_no_request_gets_a_message_and_harms_nobody() {
    let tracker = Tracker::start(&[&hex()]);
    let connect = || TcpStream::connect(tracker.address).expect("a connection");
    assert_eq!(
        refusal(exchange(connect(), b"GET / HTTP/1.0\r\n\r\n")),
        "not a request of the tracker protocol"
    );
    let long = b"CASC\0\0\0\x01\0\0\0\x02\xff\xff\xff\xff";
    assert_eq!(
        refusal(exchange(connect(), long)),
        "a request body has 38 bytes, not 4294967295"
    );
    let cut = connect();
    (&cut)
        .write_all(&subscribe(1).encode()[..30])
        .expect("a write");
    cut.shutdown(Shutdown::Write).expect("a half-close");
    assert_eq!(refusal(exchange(cut, b"")), "the request ends too early");
    let silent = connect();
    silent.shutdown(Shutdown::Write).expect("a half-close");
    let mut received = Vec::new();
    (&silent).read_to_end(&mut received).expect("a close");
    assert_eq!(received, b"");
    drop(connect());
    assert_eq!(tracker.list(), []);
    eventually("no child is left", || tracker.children().is_empty());
    let log = tracker.stop();
    assert!(log.contains("protocol error 3"), "{log}");
}

#[test]
fn a_term_ends_the_tracker_and_frees_its_port() {
    let tracker = Tracker::start(&["--open"]);
    let address = tracker.address.to_string();
    // A client that says nothing does not delay the end.
    let _silent = TcpStream::connect(tracker.address).expect("a connection");
    eventually("the client is served", || !tracker.children().is_empty());
    let started = Instant::now();
    tracker.stop();
    assert!(started.elapsed() < Duration::from_secs(5));
    let tracker = Tracker::run(&["-l", &address, "--open"]);
    assert_eq!(tracker.address.to_string(), address);
    assert_eq!(tracker.list(), []);
}

#[test]
fn a_port_in_use_is_an_error() {
    let tracker = Tracker::start(&["--open"]);
    let address = tracker.address.to_string();
    let (status, stdout, stderr) = end_of(cascade().args(["tracker", "--open", "-l", &address]));
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.starts_with(&format!("cascade: cannot listen on {address}: ")),
        "{stderr}"
    );
}

#[test]
fn list_prints_a_line_for_each_peer() {
    let tracker = Tracker::start(&[&hex()]);
    let nobody = format!("cascade: no peer is registered for {}\n", hex());
    assert_eq!(
        list_command(&tracker, &hex()),
        (Some(0), String::new(), nobody)
    );
    peers(tracker.ask(&subscribe(4711)));
    let (status, stdout, stderr) = list_command(&tracker, &hex());
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let seen = stdout
        .strip_prefix("127.0.0.1:4711  ")
        .and_then(|rest| rest.strip_suffix("\n"))
        .unwrap_or_else(|| panic!("{stdout:?}"));
    let age = humantime::parse_rfc3339(seen).expect("a time").elapsed();
    assert!(age.is_ok_and(|age| age < PATIENCE), "{seen}");
    let (status, from_environment, _) = end_of(
        cascade()
            .env("CASCADE_TRACKER", tracker.address.to_string())
            .args(["list", &hex()]),
    );
    assert_eq!((status, from_environment), (Some(0), stdout));
}

#[test]
fn a_cascade_file_names_its_hash() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("empty.cascade");
    let bytes = [&b"CASCADE1"[..], &[0; 16], &64u64.to_be_bytes(), &[7; 32]].concat();
    fs::write(&path, &bytes).expect("a file");
    let path = path.to_str().expect("text");
    let tracker = Tracker::start(&[path]);
    let subscribe = Request {
        hash: CascadeHash::of(&bytes),
        ..subscribe(9)
    };
    assert_eq!(peers(tracker.ask(&subscribe)), []);
    let (status, stdout, _) = list_command(&tracker, path);
    assert_eq!(status, Some(0));
    assert!(stdout.starts_with("127.0.0.1:9  "), "{stdout}");
}

#[test]
fn what_cannot_be_listed_is_one_line_and_status_1() {
    let tracker = Tracker::start(&[&hex()]);
    let address = tracker.address.to_string();
    let one_line =
        |(status, stdout, stderr): (Option<i32>, String, String), begins: &str, ends: &str| {
            assert_eq!((status, stdout.as_str()), (Some(1), ""), "{stderr}");
            assert!(
                stderr.starts_with(begins) && stderr.ends_with(ends),
                "{stderr}"
            );
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
        };
    let begins = format!("cascade: cannot list the peers at {address}: ");
    one_line(
        list_command(&tracker, &"cd".repeat(32)),
        &begins,
        "it refused: this tracker does not track the file; add its cascade file there, or start it with --open\n",
    );
    assert!(!Path::new("no-such.cascade").exists());
    one_line(
        list_command(&tracker, "no-such.cascade"),
        "cascade: cannot read no-such.cascade: ",
        "\n",
    );
    tracker.stop();
    one_line(
        end_of(cascade().args(["list", "-t", &address, &hex()])),
        &begins,
        "\n",
    );
    let (status, _, stderr) = end_of(cascade().args(["list", "-t", "localhost:65536", &hex()]));
    assert_eq!(status, Some(2), "{stderr}");
}
