//! `--inetd`: one connection, which somebody else has accepted, on standard input and output.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::process::Process;
use common::sample::Sample;
use common::scene::Scene;
use common::subject::peer;
use common::{clients, eventually, sample, trackers};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How a super-server starts a program.
struct Super<'a> {
    scene: &'a Scene,
    listener: TcpListener,
    words: Vec<&'a str>,
}

/// Where standard error goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    /// To the client: inetd(8) ties all three streams to the connection.
    Tied,
    /// Into the file `log`.
    Apart,
}

impl<'a> Super<'a> {
    fn new(scene: &'a Scene, words: &[&'a str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let words = [words, &["--inetd"]].concat();
        Self {
            scene,
            listener,
            words,
        }
    }

    fn command(&self, log: Log, socket: &OwnedFd) -> Command {
        let copy = || Stdio::from(socket.try_clone().expect("a descriptor"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
        command.args(&self.words).current_dir(self.scene.path(""));
        command.env_remove("RUST_BACKTRACE");
        command.stdin(copy()).stdout(copy());
        command.stderr(match log {
            Log::Tied => copy(),
            Log::Apart => {
                let options = fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(self.scene.path("log"));
                options.expect("a file for the log").into()
            }
        });
        command
    }

    /// Connects; answers the client's end and the process.
    fn connect(&self, log: Log) -> (TcpStream, Child) {
        let address = self.listener.local_addr().expect("it is bound");
        let client = clients::connect(address);
        let (socket, _) = self.listener.accept().expect("a client");
        let child = self
            .command(log, &socket.into())
            .spawn()
            .expect("a process");
        (client, child)
    }

    /// Sends this and no more; answers what comes back until the end, and the exit status.
    fn ask(&self, log: Log, request: &[u8]) -> (Vec<u8>, Option<i32>) {
        let (mut client, mut child) = self.connect(log);
        let mut reply = Vec::new();
        // One that ends without a look at the request resets the connection.
        let _ = client.write_all(request);
        let _ = client.shutdown(Shutdown::Write);
        let _ = client.read_to_end(&mut reply);
        (reply, child.wait().expect("it ends").code())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.scene.path("log")).unwrap_or_default()
    }
}

#[test]
fn lines_come_back_and_not_a_word_of_the_log() {
    let scene = Scene::new();
    let inetd = Super::new(&scene, &["echo", "serve", "-v"]);
    for log in [Log::Tied, Log::Apart] {
        let text = [&b"one\ntwo"[..], &sample::random(300_000)].concat();
        let (reply, status) = inetd.ask(log, &text);
        assert!(reply == text, "{} of {} bytes", reply.len(), text.len());
        assert_eq!(status, Some(0));
    }
    assert!(inetd.log().contains(": done"), "{}", inetd.log());
}

#[test]
fn a_client_is_told_nothing_of_what_is_wrong_here() {
    let scene = Scene::new();
    for (words, status) in [
        (&["echo", "serve", "--nonsense"][..], 2),
        (&["tracker", "--open"], 2),
        (&["tracker", "--open", "--state", "nowhere/peers"], 1),
        (&["echo", "serve", "--user", "nobody-of-this-name"], 1),
    ] {
        let inetd = Super::new(&scene, words);
        let request = trackers::request(2, &[7; 32], peer(1));
        let (reply, code) = inetd.ask(Log::Tied, &request);
        assert_eq!(String::from_utf8_lossy(&reply), "", "{words:?}");
        assert_eq!(code, Some(status), "{words:?}");
        // The operator is.
        inetd.ask(Log::Apart, &request);
        assert!(inetd.log().contains("cascade: "), "{words:?}");
        fs::remove_file(scene.path("log")).expect("the log");
    }
}

#[test]
fn the_log_knows_the_client() {
    let scene = Scene::new();
    let inetd = Super::new(&scene, &["echo", "serve", "-v", "--sandbox", "require"]);
    let (client, mut child) = inetd.connect(Log::Apart);
    let address = client.local_addr().expect("ours");
    drop(client);
    child.wait().expect("it ends");
    assert!(
        inetd.log().contains(&format!("from {address}\n")),
        "{}",
        inetd.log()
    );
}

#[test]
fn files_and_pipes_will_do() {
    let scene = Scene::new();
    let text = sample::random(1_000_000);
    fs::write(scene.path("input"), &text).expect("a file");
    for pipeline in [
        "\"$0\" echo serve --inetd < input > output",
        "cat input | \"$0\" echo serve --inetd | cat > output",
    ] {
        let shell = scene
            .program("sh")
            .args(["-c", pipeline, env!("CARGO_BIN_EXE_cascade")]);
        shell.run().assert_code(0).assert_no_error();
        let output = fs::read(scene.path("output")).expect("the output");
        assert!(output == text, "{pipeline}: {} bytes", output.len());
        fs::remove_file(scene.path("output")).expect("our own");
    }
    scene.assert_nothing_left();
}

#[test]
fn who_reads_nothing_of_the_output_ends_it() {
    let scene = Scene::new();
    let pipeline = "yes | \"$0\" echo serve --inetd --send-timeout 300ms | true";
    let shell = scene
        .program("sh")
        .args(["-c", pipeline, env!("CARGO_BIN_EXE_cascade")]);
    shell.run().assert_code(0);
    scene.assert_nothing_left();
}

#[test]
fn a_local_socket_is_a_connection_as_well() {
    let scene = Scene::new();
    let inetd = Super::new(&scene, &["echo", "serve"]);
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    let mut child = inetd
        .command(Log::Apart, &theirs.into())
        .spawn()
        .expect("a process");
    ours.write_all(b"line\n").expect("a send");
    ours.shutdown(Shutdown::Write).expect("a shutdown");
    let mut reply = Vec::new();
    ours.read_to_end(&mut reply).expect("an end");
    assert_eq!(reply, b"line\n");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_socket_without_a_client_is_a_mistake() {
    let scene = Scene::new();
    let inetd = Super::new(&scene, &["echo", "serve"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    for socket in [OwnedFd::from(listener), OwnedFd::from(datagrams)] {
        let status = inetd
            .command(Log::Apart, &socket)
            .status()
            .expect("a process");
        assert_eq!(status.code(), Some(1));
        assert!(
            inetd
                .log()
                .contains("cascade: cannot serve standard input: "),
            "{}",
            inetd.log()
        );
        fs::remove_file(scene.path("log")).expect("the log");
    }
}

#[test]
fn limits_hold_and_a_signal_ends_it() {
    let scene = Scene::new();
    let inetd = Super::new(&scene, &["echo", "serve", "--idle-timeout", "100ms"]);
    let (mut silent, mut child) = inetd.connect(Log::Apart);
    silent
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout");
    assert_eq!(silent.read(&mut [0]).expect("an end"), 0);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));

    let inetd = Super::new(&scene, &["echo", "serve", "-v"]);
    let (mut idle, mut child) = inetd.connect(Log::Apart);
    eventually("it serves", || inetd.log().contains("accept pid"));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("it lives");
    assert_eq!(idle.read(&mut [0]).expect("an end"), 0);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

const TRACKER: [&str; 5] = ["tracker", "--open", "-v", "--state", "peers"];

fn listed(inetd: &Super<'_>, hash: &[u8; 32]) -> usize {
    let request = trackers::request(1, hash, SocketAddrV4::new([0; 4].into(), 0));
    let (reply, status) = inetd.ask(Log::Tied, &request);
    assert_eq!((reply[0], status), (0, Some(0)));
    (reply.len() - 5) / 12
}

#[test]
fn a_tracker_remembers_in_its_state_who_has_subscribed() {
    let scene = Scene::new();
    let inetd = Super::new(&scene, &[&TRACKER[..], &["--sandbox", "require"]].concat());
    let hash = [7; 32];
    assert_eq!(listed(&inetd, &hash), 0);
    assert!(!scene.path("peers").exists(), "nothing has changed");
    for number in 1..=3 {
        let request = trackers::request(2, &hash, peer(number));
        let (reply, status) = inetd.ask(Log::Tied, &request);
        assert_eq!((reply[0], status), (0, Some(0)));
        assert_eq!(listed(&inetd, &hash), number);
    }
    let leave = trackers::request(3, &hash, peer(2));
    assert_eq!(inetd.ask(Log::Tied, &leave).0[0], 0);
    assert_eq!(listed(&inetd, &hash), 2);
    // A tracker that listens takes over.
    let tracker = scene
        .cascade("tracker")
        .args(["--open", "--state", "peers"]);
    let tracker = tracker.args(["-l", "127.0.0.1:0"]).serve();
    assert_eq!(trackers::list(tracker.address(), &hash).len(), 2);
    tracker.stop();
}

#[test]
fn beside_a_tracker_that_listens_every_client_is_refused() {
    let scene = Scene::new();
    let inetd = Super::new(&scene, &[&TRACKER[..], &["--sandbox", "require"]].concat());
    let tracker = scene
        .cascade("tracker")
        .args(["--open", "--state", "peers"]);
    let tracker = tracker.args(["-l", "127.0.0.1:0"]).serve();
    for command in 1..=3 {
        let request = trackers::request(command, &[7; 32], peer(1));
        for log in [Log::Tied, Log::Apart] {
            let (reply, status) = inetd.ask(log, &request);
            let (code, body) = reply.split_at(5);
            assert_eq!((code[0], status), (1, Some(1)));
            assert_eq!(
                String::from_utf8_lossy(body),
                "another tracker answers for this one's files; its operator has to stop one of them\n"
            );
        }
    }
    let pid = tracker.process().pid();
    let said =
        format!("cascade: cannot use the state peers: it is used by another tracker (pid {pid})");
    assert!(inetd.log().contains(&said), "{}", inetd.log());
    assert_eq!(trackers::list(tracker.address(), &[7; 32]).len(), 0);
    tracker.stop();
    let request = trackers::request(2, &[7; 32], peer(1));
    assert_eq!(inetd.ask(Log::Tied, &request).0[0], 0);
    assert_eq!(listed(&inetd, &[7; 32]), 1);
}

#[test]
fn of_many_that_subscribe_at_once_nobody_is_forgotten() {
    let scene = Scene::new();
    let inetd = Super::new(&scene, &TRACKER);
    let mut connections: Vec<_> = (0..15).map(|_| inetd.connect(Log::Apart)).collect();
    for (number, (client, _)) in connections.iter_mut().enumerate() {
        let request = trackers::request(2, &[7; 32], peer(number));
        client.write_all(&request).expect("a request");
    }
    for (client, child) in &mut connections {
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).expect("a reply");
        assert_eq!(reply.first(), Some(&0), "{}", inetd.log());
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
    }
    assert_eq!(listed(&inetd, &[7; 32]), 15);
}

#[test]
fn a_subscription_that_cannot_be_kept_is_not_confirmed() {
    let scene = Scene::new();
    let inetd = Super::new(&scene, &TRACKER);
    // As root, nothing else keeps it from being written.
    fs::create_dir(scene.path("peers.lock")).expect("our own directory");
    let (reply, status) = inetd.ask(Log::Apart, &trackers::request(2, &[7; 32], peer(1)));
    assert_eq!((reply, status), (Vec::new(), Some(1)));
    assert!(
        inetd.log().contains("cascade: cannot lock peers.lock"),
        "{}",
        inetd.log()
    );
}

#[test]
fn what_makes_no_sense_is_answered_and_no_failure_of_the_program() {
    let scene = Scene::new();
    let inetd = Super::new(&scene, &TRACKER);
    let (reply, status) = inetd.ask(
        Log::Tied,
        b"GET / HTTP/1.0\r\n\r\n and more than 54 bytes of that kind",
    );
    assert_ne!(reply[0], 0);
    assert_eq!(status, Some(0));
}

#[cfg(feature = "faults")]
#[test]
fn whatever_serves_the_connection_is_confined() {
    for (fault, answer) in [
        ("connection=open", &b"line\n"[..]),
        ("connection=exec", b""),
    ] {
        let scene = Scene::new();
        let inetd = Super::new(&scene, &["echo", "serve", "-v"]);
        let (mut client, socket) = {
            let client = clients::connect(inetd.listener.local_addr().expect("it is bound"));
            (
                client,
                OwnedFd::from(inetd.listener.accept().expect("a client").0),
            )
        };
        let mut command = inetd.command(Log::Apart, &socket);
        drop(socket);
        let mut child = command
            .env("CASCADE_FAULT", fault)
            .spawn()
            .expect("a process");
        drop(command);
        // One that is killed resets the connection, perhaps before this.
        let _ = client.write_all(b"line\n");
        let _ = client.shutdown(Shutdown::Write);
        let mut reply = Vec::new();
        let _ = client.read_to_end(&mut reply);
        assert_eq!(reply, answer, "{fault}: {}", inetd.log());
        child.wait().expect("it ends");
        let said = [
            "attack open at connection: Permission denied",
            "signal 31 (SIGSYS)",
        ];
        assert!(
            said.iter().any(|it| inetd.log().contains(it)),
            "{}",
            inetd.log()
        );
    }
}

#[test]
fn a_listener_goes_with_other_options() {
    let scene = Scene::new();
    for options in [
        &["-l", "0"][..],
        &["--pidfile", "pid"],
        &["--model", "event"],
    ] {
        let echo = scene
            .cascade("echo")
            .args(["serve", "--inetd"])
            .args(options);
        let ended: Process = echo.start();
        ended.finish().assert_code(2);
    }
}

#[test]
fn a_peer_serves_what_is_right_and_nothing_else() {
    let scene = Scene::new();
    let mut sample = Sample::new("data", 10_000, 3000);
    sample.write_cascade(&scene.path(""));
    let (hash, right) = (sample.hash(), sample.bytes.clone());
    // One byte of the second block is wrong.
    sample.bytes[4000] ^= 1;
    sample.write_data(&scene.path(""));
    let inetd = Super::new(&scene, &["peer", "--sandbox", "require", "data.cascade"]);
    let requests = [0, 1, 3]
        .map(|block| clients::request(&hash, block))
        .concat();
    let (reply, status) = inetd.ask(Log::Tied, &requests);
    let block = |range: std::ops::Range<usize>| {
        let length = (range.len() as u64).to_be_bytes();
        [&[0], &length[..], &right[range]].concat()
    };
    let not_present = [
        &[2][..],
        &27u64.to_be_bytes(),
        b"this block is not here yet\n",
    ]
    .concat();
    assert_eq!(
        reply,
        [block(0..3000), not_present, block(9000..10_000)].concat()
    );
    assert_eq!(status, Some(0));
    // What is there is not known: the block is the answer, as of a peer without the extension.
    let map = clients::request_with(&hash, 0, clients::extension(1));
    assert_eq!(inetd.ask(Log::Tied, &map).0, block(0..3000));
    let meta = clients::request_with(&hash, 0, clients::extension(2));
    assert_eq!(inetd.ask(Log::Tied, &meta).0[9..], sample.cascade);
}

#[test]
fn a_download_from_such_peers_works() {
    let scene = Scene::new();
    let sample = Sample::new("data", 300_000, 3000);
    sample.write_cascade(&scene.path(""));
    fs::write(sample.part(&scene.path("data")), &sample.bytes).expect("a file");
    let inetd = Super::new(&scene, &["peer", "data.cascade"]);
    let address = inetd.listener.local_addr().expect("it is bound");
    let copy = scene.directory("copy");
    let get = scene
        .cascade("get")
        .peer(address)
        .arg(sample.write_cascade(&copy));
    let mut get = get.start();
    inetd.listener.set_nonblocking(true).expect("it can");
    let mut children = Vec::new();
    eventually("the download has ended", || {
        if let Ok((socket, _)) = inetd.listener.accept() {
            socket.set_nonblocking(false).expect("it can");
            let child = inetd.command(Log::Apart, &socket.into()).spawn();
            children.push(child.expect("a process"));
        }
        get.ended().is_some()
    });
    get.finish().assert_code(0);
    sample.assert_complete(&copy.join("data"));
    for mut child in children {
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
    }
}
