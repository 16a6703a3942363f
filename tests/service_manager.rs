//! Started by a service manager, or by somebody who does as systemd does: sockets that were passed, and what the manager
//! hears of a daemon.

mod common;

use std::fs;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::Stdio;
use std::time::Duration;

use common::process::{Process, Server};
use common::procfs;
use common::sample::Sample;
use common::scene::{Invocation, Scene};
use common::subject::{BLOCK, Kind, MODELS, subscribe};
use common::{clients, eventually, is_root, skip, trackers};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt::PassCred,
};
use nix::unistd::Pid;

/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// The command line of each kind of daemon, without where to listen.
fn command(scene: &Scene, kind: Kind) -> Vec<String> {
    let words: &[&str] = match kind {
        Kind::Echo => &["echo", "serve"],
        Kind::Tracker => &["tracker", "--open"],
        Kind::Peer => &["peer", "data.cascade"],
    };
    if kind == Kind::Peer {
        sample().write_data(&scene.path(""));
        sample().write_cascade(&scene.path(""));
    }
    words.iter().map(|&word| word.into()).collect()
}

fn sample() -> Sample {
    Sample::new("data", 20 * BLOCK, BLOCK)
}

/// Talks to a daemon as a stranger would.
fn is_served(kind: Kind, stream: &mut TcpStream) {
    let (request, length) = match kind {
        Kind::Echo => (b"line\n".to_vec(), 5),
        Kind::Tracker => (subscribe(1), 5),
        Kind::Peer => (clients::request(&sample().hash(), 0), 9 + BLOCK),
    };
    stream.write_all(&request).expect("a request");
    stream.read_exact(&mut vec![0; length]).expect("a response");
}

/// The program, started as a service manager starts it that passes its standard input as descriptor 3.
fn activated<'a>(scene: &'a Scene, words: &[String]) -> Invocation<'a> {
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null";
    let shell = scene.program("sh").args(["-c", script]);
    shell.arg(env!("CARGO_BIN_EXE_cascade")).args(words)
}

fn copy(listener: &TcpListener) -> OwnedFd {
    listener.try_clone().expect("a descriptor").into()
}

#[test]
fn a_socket_that_was_passed_is_served_and_outlives_the_daemon() {
    for kind in [Kind::Echo, Kind::Tracker, Kind::Peer] {
        for model in MODELS {
            let scene = Scene::new();
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            let mut words = command(&scene, kind);
            words.extend(["--model", model, "--sandbox", "require"].map(String::from));
            let start = || Server::new(activated(&scene, &words).start_with_stdin(copy(&listener)));
            let server = start();
            assert_eq!(server.addresses(), [address], "{kind:?} {model}");
            is_served(kind, &mut clients::connect(address));
            server.stop();
            // Nobody is refused meanwhile, but waits for the next one.
            let mut early = clients::connect(address);
            let server = start();
            is_served(kind, &mut early);
            server.stop();
        }
    }
}

#[test]
fn a_listener_that_died_is_started_again_on_the_socket_that_was_passed() {
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let words = command(&scene, Kind::Peer);
    let server = Server::new(activated(&scene, &words).start_with_stdin(copy(&listener)));
    is_served(Kind::Peer, &mut clients::connect(server.address()));
    kill(listener_of(server.process()), Signal::SIGTERM).expect("it lives");
    is_served(Kind::Peer, &mut clients::connect(server.address()));
    server.stop();
}

#[test]
fn a_peer_is_found_on_a_socket_for_both_families() {
    let Ok(listener) = TcpListener::bind("[::]:0") else {
        return skip("there is no IPv6");
    };
    let scene = Scene::new();
    let tracker = scene.tracker();
    let mut words = command(&scene, Kind::Peer);
    words.extend(["-t".into(), tracker.address().to_string()]);
    let peer = Server::new(activated(&scene, &words).start_with_stdin(copy(&listener)));
    let port = listener.local_addr().expect("it is bound").port();
    let expected = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    eventually("the tracker knows the peer", || {
        trackers::list(tracker.address(), &sample().hash()) == [expected]
    });
    is_served(Kind::Peer, &mut clients::connect(expected.into()));
    peer.stop();
}

#[test]
fn several_sockets_may_have_names() {
    let scene = Scene::new();
    let [one, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let script = "LISTEN_FDNAMES=one:other LISTEN_PID=$$ LISTEN_FDS=2 \
                  exec \"$0\" tracker --open 3<&0 4<&1 </dev/null >out 2>err";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_cascade")]);
    shell
        .current_dir(scene.path(""))
        .stdin(copy(&one))
        .stdout(copy(&other));
    let process = Process::start_as_is(shell, scene.path("out"), scene.path("err"));
    let server = Server::new(process);
    let addresses = [&one, &other].map(|listener| listener.local_addr().expect("it is bound"));
    eventually("it listens on both", || server.addresses() == addresses);
    for address in addresses {
        is_served(Kind::Tracker, &mut clients::connect(address));
    }
    server.stop();
}

#[test]
fn an_address_that_no_socket_has_is_a_mistake_and_one_that_has_one_is_not() {
    for kind in [Kind::Echo, Kind::Tracker, Kind::Peer] {
        let scene = Scene::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let words = |listen: &str| {
            let mut words = command(&scene, kind);
            words.extend(["-l".into(), listen.into()]);
            words
        };
        for other in ["127.0.0.1:0", &address.port().to_string()] {
            let ended = activated(&scene, &words(other)).start_with_stdin(copy(&listener));
            let ended = ended.finish().assert_code(2);
            assert!(ended.error().contains("LISTEN_FDS"), "{ended:#?}");
        }
        let words = words(&address.to_string());
        let server = Server::new(activated(&scene, &words).start_with_stdin(copy(&listener)));
        is_served(kind, &mut clients::connect(address));
        server.stop();
    }
}

#[test]
fn sockets_that_were_passed_to_another_are_not_ours() {
    let scene = Scene::new();
    let tracker = scene
        .cascade("tracker")
        .args(["--open", "-l", "127.0.0.1:0"]);
    // The process that started us, and left its environment as it was.
    let server = tracker
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "1")
        .serve();
    is_served(Kind::Tracker, &mut clients::connect(server.address()));
    server.stop();
}

#[test]
fn what_was_passed_must_listen_for_tcp() {
    let scene = Scene::new();
    let words = command(&scene, Kind::Tracker);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let connected = TcpStream::connect(listener.local_addr().expect("it is bound"));
    let local = UnixListener::bind(scene.path("socket")).expect("a new name");
    let (pipe, _writer) = std::io::pipe().expect("a pipe");
    let passed: [(Stdio, &str); 3] = [
        (
            OwnedFd::from(pipe).into(),
            "cannot listen on descriptor 3 of LISTEN_FDS: ",
        ),
        (
            OwnedFd::from(connected.expect("it listens")).into(),
            "--inetd",
        ),
        (OwnedFd::from(local).into(), "it is not for TCP"),
    ];
    for (passed, reason) in passed {
        let ended = activated(&scene, &words).start_with_stdin(passed).finish();
        let ended = ended.assert_code(1);
        assert!(ended.error().contains(reason), "{ended:#?}");
    }
    for (pid, count) in [("$$", "x"), ("$$", "9"), ("x", "1")] {
        let script = format!("LISTEN_PID={pid} LISTEN_FDS={count} exec \"$0\" tracker --open");
        let shell = scene.program("sh").args(["-c", &script]);
        let ended = shell.arg(env!("CARGO_BIN_EXE_cascade")).run();
        let ended = ended.assert_code(1);
        let error = ended.error();
        assert!(
            error.starts_with("cascade: cannot take over the sockets of LISTEN_FDS: "),
            "{error}"
        );
    }
}

/// A service manager, as far as a daemon can tell.
struct Manager {
    socket: UnixDatagram,
    address: String,
}

impl Manager {
    fn new(scene: &Scene) -> Self {
        let path = scene.path("notify");
        let socket = UnixDatagram::bind(&path).expect("a new name");
        let limit = Some(Duration::from_secs(30));
        socket.set_read_timeout(limit).expect("a timeout");
        setsockopt(&socket, PassCred, &true).expect("an option");
        let address = path.to_string_lossy().into_owned();
        Self { socket, address }
    }

    /// Who sent the next message, and its lines.
    fn next_from(&self) -> (Option<Pid>, Vec<String>) {
        let (mut message, mut space) = ([0; 4096], nix::cmsg_space!(UnixCredentials));
        let mut parts = [IoSliceMut::new(&mut message)];
        let received = recvmsg::<()>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        );
        let received = received.expect("a message in time");
        let sender = received.cmsgs().expect("room").find_map(|one| match one {
            ControlMessageOwned::ScmCredentials(who) => Some(Pid::from_raw(who.pid())),
            _ => None,
        });
        let n = received.bytes;
        let text = std::str::from_utf8(&message[..n]).expect("text");
        (sender, text.lines().map(String::from).collect())
    }

    /// The lines of the next message.
    fn next(&self) -> Vec<String> {
        self.next_from().1
    }

    /// The lines of the next message that begins with this one.
    fn wait_for(&self, line: &str) -> Vec<String> {
        loop {
            let message = self.next();
            if message.iter().any(|it| it == line) {
                return message;
            }
        }
    }

    /// Forgets what has arrived; answers whether there was something.
    fn forget(&self) -> bool {
        self.socket.set_nonblocking(true).expect("it can");
        let mut some = false;
        let error = loop {
            match self.socket.recv(&mut [0; 4096]) {
                Ok(_) => some = true,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        self.socket.set_nonblocking(false).expect("it can");
        some
    }

    /// A daemon of this manager, on a free port.
    fn start(&self, scene: &Scene, kind: Kind, options: &[&str]) -> Server {
        let daemon = scene.program(env!("CARGO_BIN_EXE_cascade"));
        let daemon = daemon
            .args(command(scene, kind))
            .args(["-l", "127.0.0.1:0"]);
        daemon
            .args(options)
            .env("NOTIFY_SOCKET", &self.address)
            .serve()
    }

    /// The same, of a manager that is a watchdog.
    fn watch(&self, scene: &Scene, kind: Kind, patience: Duration, options: &[&str]) -> Server {
        let daemon = scene.program(env!("CARGO_BIN_EXE_cascade"));
        let daemon = daemon
            .args(command(scene, kind))
            .args(["-l", "127.0.0.1:0"]);
        let patience = patience.as_micros().to_string();
        let daemon = daemon.env("WATCHDOG_USEC", patience);
        daemon
            .args(options)
            .env("NOTIFY_SOCKET", &self.address)
            .serve()
    }
}

fn has(message: &[String], begin: &str) -> bool {
    message.iter().any(|line| line.starts_with(begin))
}

/// The process of a peer that accepts connections: of its children, the one that has no other job once all is there.
fn listener_of(peer: &Process) -> Pid {
    let mut children = Vec::new();
    eventually("there is a listener, and nothing else", || {
        children = procfs::children(peer.pid());
        children.len() == 1
    });
    children[0]
}

#[test]
fn the_manager_hears_that_a_daemon_is_ready_and_where_and_that_it_stops() {
    for kind in [Kind::Echo, Kind::Tracker, Kind::Peer] {
        for model in MODELS {
            let scene = Scene::new();
            let manager = Manager::new(&scene);
            let server = manager.start(&scene, kind, &["--model", model, "--sandbox", "require"]);
            if kind == Kind::Peer {
                let verifying = ["STATUS=verifying files: 1 of 1 left"];
                assert_eq!(manager.next(), verifying, "{model}");
            }
            let ready = manager.next();
            let status = format!("STATUS=listening on {}", server.address());
            assert_eq!(ready, ["READY=1", &status], "{kind:?} {model}");
            is_served(kind, &mut clients::connect(server.address()));
            server.stop();
            let stopping = manager.wait_for("STOPPING=1");
            assert!(has(&stopping, "STATUS=finishing"), "{stopping:?}");
            assert!(!manager.forget(), "it is told once");
        }
    }
}

#[test]
fn a_tracker_is_ready_before_it_says_where_it_listens() {
    let scene = Scene::new();
    let manager = Manager::new(&scene);
    let server = manager.start(&scene, Kind::Tracker, &[]);
    // Whoever reads its output knows that the manager was told.
    assert!(manager.forget());
    server.stop();
}

#[test]
fn the_manager_hears_of_a_look_at_the_configuration() {
    for kind in [Kind::Tracker, Kind::Peer] {
        let scene = Scene::new();
        let manager = Manager::new(&scene);
        let server = manager.start(&scene, kind, &["--sandbox", "require"]);
        manager.wait_for("READY=1");
        for _ in 0..2 {
            server.process().signal(Signal::SIGHUP);
            let reloading = manager.wait_for("RELOADING=1");
            let time = reloading
                .iter()
                .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
            let time: u64 = time.and_then(|time| time.parse().ok()).expect("a time");
            assert!(time > 0);
            manager.wait_for("READY=1");
        }
        server.stop();
    }
}

#[test]
fn a_peer_that_waits_for_a_cascade_file_is_ready_and_says_so() {
    let scene = Scene::new();
    let manager = Manager::new(&scene);
    let nobody = trackers::nobody_there();
    let link = format!("cascade://{nobody}/{}/data", "ab".repeat(32));
    let peer = scene.cascade("peer").args(["-l", "127.0.0.1:0", &link]);
    let peer = peer.env("NOTIFY_SOCKET", &manager.address).start();
    assert_eq!(
        manager.next(),
        ["READY=1", "STATUS=fetching cascade files: 1"]
    );
    peer.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    peer.finish().assert_code(0);
}

#[test]
fn a_loop_shows_that_it_lives_under_every_model_and_nobody_else_says_it() {
    for (kind, model) in MODELS
        .map(|model| (Kind::Echo, model))
        .into_iter()
        .chain([(Kind::Tracker, "process"), (Kind::Peer, "process")])
    {
        let scene = Scene::new();
        let manager = Manager::new(&scene);
        let patience = Duration::from_millis(150);
        // A listener that is slow because the machine is would be given up.
        let patience = match kind {
            Kind::Peer => Duration::from_secs(3),
            _ => patience,
        };
        let options = ["--model", model, "--sandbox", "require"];
        let server = manager.watch(&scene, kind, patience, &options);
        // A connection that takes its time keeps nothing from being told.
        let _guest = clients::connect(server.address());
        let mut alive = 0;
        while alive < 3 {
            let (sender, message) = manager.next_from();
            // What another process said would say nothing of the loop, should that not run.
            assert_eq!(sender, Some(server.process().pid()), "{kind:?} {model}");
            if has(&message, "WATCHDOG=1") {
                assert!(has(&message, "STATUS="), "{message:?}");
                assert!(!message.contains(&"STATUS=".into()), "it says something");
                alive += 1;
            }
        }
        server.stop();
    }
}

#[test]
fn it_lives_on_while_it_finishes_transfers() {
    for model in MODELS {
        let scene = Scene::new();
        let manager = Manager::new(&scene);
        let patience = Duration::from_millis(150);
        let options = ["--model", model, "--grace", "1h"];
        let server = manager.watch(&scene, Kind::Echo, patience, &options);
        let mut guest = clients::connect(server.address());
        // Half a line is a request that is under way.
        guest.write_all(b"line\nhalf").expect("a send");
        guest.read_exact(&mut [0; 5]).expect("an echo");
        server.process().signal(Signal::SIGTERM);
        manager.wait_for("STOPPING=1");
        for _ in 0..3 {
            manager.wait_for("WATCHDOG=1");
        }
        drop(guest);
        server.stop();
    }
}

#[test]
fn a_listener_that_hangs_is_killed_and_another_takes_its_place() {
    let scene = Scene::new();
    let manager = Manager::new(&scene);
    let server = manager.watch(&scene, Kind::Peer, Duration::from_secs(3), &[]);
    manager.wait_for("WATCHDOG=1");
    let listener = listener_of(server.process());
    kill(listener, Signal::SIGSTOP).expect("it lives");
    eventually("it is found out", || {
        let log = server.process().stderr();
        log.contains(&format!(
            "watchdog timeout: the listener, pid {listener}, does not respond"
        ))
    });
    is_served(Kind::Peer, &mut clients::connect(server.address()));
    manager.forget();
    manager.wait_for("WATCHDOG=1");
    server.stop();
}

#[test]
fn the_manager_is_told_though_the_daemon_has_become_another_user_who_sees_another_root() {
    if !is_root() {
        return skip("only root can change its user");
    }
    let scene = Scene::new();
    fs::set_permissions(scene.path(""), fs::Permissions::from_mode(0o755)).expect("ours");
    let jail = scene.directory("jail");
    chown(&jail, Some(NOBODY), Some(NOBODY)).expect("root may");
    let manager = Manager::new(&scene);
    let options = ["--user", "65534:65534", "--chroot", "jail"];
    let patience = Duration::from_millis(300);
    let server = manager.watch(&scene, Kind::Tracker, patience, &options);
    manager.wait_for("READY=1");
    manager.wait_for("WATCHDOG=1");
    server.stop();
    manager.wait_for("STOPPING=1");
}

#[test]
fn a_manager_may_have_a_name_in_no_directory() {
    let scene = Scene::new();
    let name = format!("cascade-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("a new name");
    let address = format!("@{name}");
    let manager = Manager { socket, address };
    let patience = Duration::from_millis(300);
    let server = manager.watch(&scene, Kind::Tracker, patience, &["--sandbox", "require"]);
    manager.wait_for("READY=1");
    manager.wait_for("WATCHDOG=1");
    server.stop();
}

#[test]
fn a_manager_that_is_gone_or_does_not_listen_keeps_nobody_from_serving() {
    let scene = Scene::new();
    for address in ["/nowhere/notify", "vsock:2:1", "x"] {
        let tracker = scene
            .cascade("tracker")
            .args(["--open", "-l", "127.0.0.1:0"]);
        let server = tracker.env("NOTIFY_SOCKET", address).serve();
        is_served(Kind::Tracker, &mut clients::connect(server.address()));
        let ended = server.stop();
        assert!(
            ended.stderr.contains("cannot reach the service manager"),
            "{ended:#?}"
        );
    }
    let manager = Manager::new(&scene);
    // Its messages pile up until there is no more room, and then it goes.
    let patience = Duration::from_millis(30);
    let server = manager.watch(&scene, Kind::Tracker, patience, &[]);
    let sign = || procfs::status(server.process().pid(), "voluntary_ctxt_switches");
    let before = sign().expect("it lives");
    eventually("many signs of life are in vain", || {
        sign() > Some(before + 100)
    });
    drop(manager);
    is_served(Kind::Tracker, &mut clients::connect(server.address()));
    server.stop();
}

#[test]
fn what_a_peer_executes_inherits_nothing_of_this() {
    let scene = Scene::new();
    let seed = Server::new({
        let words = command(&scene, Kind::Peer);
        let seed = scene.program(env!("CARGO_BIN_EXE_cascade")).args(words);
        seed.args(["-l", "127.0.0.1:0"]).start()
    });
    let manager = Manager::new(&scene);
    let copy_of = scene.directory("copy");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let command = "env > new; mv new environment";
    let mut words = ["peer", "--exec", command, "-p"].map(String::from).to_vec();
    words.push(seed.address().to_string());
    let cascade = sample().write_cascade(&copy_of);
    words.push(cascade.to_string_lossy().into_owned());
    let peer = activated(&scene, &words).env("NOTIFY_SOCKET", &manager.address);
    let peer = peer.env("WATCHDOG_USEC", "60000000");
    let peer = Server::new(peer.start_with_stdin(copy(&listener)));
    let environment = || fs::read_to_string(scene.path("environment"));
    eventually("the command has run", || environment().is_ok());
    let environment = environment().expect("it is there");
    assert!(environment.contains("CASCADE_FILE="), "{environment}");
    for name in ["NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_"] {
        assert!(!environment.contains(name), "{environment}");
    }
    peer.stop();
    seed.stop();
}
