//! What is left to the processes beside a server that strangers have taken over: who tells how it is, who asks its peers,
//! who reads its configuration, and who serves one connection of inetd's. Needs a build with the feature `faults` (make
//! check).

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use common::process::Server;
use common::sample::Sample;
use common::scene::{Invocation, Scene};
use common::{clients, eventually, is_root, peers, procfs, skip, trackers};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// The faults that are wanted.
const FAULT: &str = "CASCADE_FAULT";
const DENIED: &str = "Permission denied";
const KILLED: &str = "signal 31 (SIGSYS)";
const SEGMENTATION: &str = "signal 11 (SIGSEGV)";
/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// A tracker of this file that tells how it is, and in which this goes wrong.
fn tracker<'a>(scene: &'a Scene, sample: &Sample, faults: &str) -> Invocation<'a> {
    scene
        .cascade("tracker")
        .args(["-v", "-l", "127.0.0.1:0", "--control", "control"])
        .args(["--http", "127.0.0.1:0"])
        .arg(sample.write_cascade(&scene.path("")))
        .env(FAULT, faults)
}

/// Registers a peer that has all of it, and may be asked.
fn register(tracker: &Server, sample: &Sample) -> common::standin::StandIn {
    let peer = peers::start(sample, peers::has_all_and_knows_the_map);
    let std::net::SocketAddr::V4(address) = peer.address() else {
        panic!("it has an IPv4 address");
    };
    let request = trackers::request(2, &sample.hash(), address);
    trackers::ask(tracker.address(), &request).expect("an answer");
    peer
}

/// What the page and the control socket answer.
fn ask(scene: &Scene, server: &Server) -> Vec<String> {
    let stdout = server.process().stdout();
    let line = stdout
        .lines()
        .find_map(|line| line.strip_prefix("status at http://"));
    let address = line.expect("it says where").trim_end_matches('/');
    let mut page = TcpStream::connect(address).expect("it listens");
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    page.write_all(request).expect("it reads");
    let mut text = String::new();
    // Who is killed resets the connection.
    let _ = page.read_to_string(&mut text);
    let status = scene.cascade("status").arg("control").run();
    vec![text, status.stdout]
}

#[test]
fn none_of_those_who_tell_and_ask_opens_a_file_or_connects_elsewhere_and_all_go_on() {
    let attacks = [
        ("connection", "open"),
        ("connection", "create"),
        ("reporter", "open"),
        ("reporter", "create"),
        ("surveyor", "open"),
        ("surveyor", "create"),
        ("question", "open"),
        ("question", "create"),
        ("question", "connect"),
    ];
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let faults: Vec<String> = attacks
        .iter()
        .map(|(role, deed)| format!("{role}={deed}"))
        .collect();
    let tracker = tracker(&scene, &sample, &faults.join(",")).serve();
    let _peer = register(&tracker, &sample);
    for (role, deed) in attacks {
        tracker.says(&format!("attack {deed} at {role}: {DENIED}"));
    }
    let denied = || {
        tracker
            .process()
            .stderr()
            .matches("attack open at connection")
            .count()
    };
    let before = denied();
    let answers = ask(&scene, &tracker);
    assert!(answers[0].contains("cascade_build_info"), "{answers:?}");
    assert!(answers[1].contains(&sample.hex()), "{answers:?}");
    eventually("those who answered had tried", || denied() == before + 2);
    tracker.stop();
}

#[test]
fn who_tells_or_asks_and_executes_a_program_is_killed() {
    for role in ["reporter", "surveyor"] {
        let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
        let tracker = tracker(&scene, &sample, &format!("{role}=exec")).serve();
        // It is started again, and dies again, until its keeper rests in between.
        let often = if role == "reporter" { 22 } else { 1 };
        let deaths = || tracker.process().stderr().matches(KILLED).count();
        eventually("it is killed each time", || deaths() >= often);
        assert_eq!(trackers::list(tracker.address(), &sample.hash()), []);
        tracker.stop();
        scene.assert_nothing_left();
    }
}

#[test]
fn who_asks_writes_nothing_that_others_read() {
    for (deed, end) in [
        ("write", SEGMENTATION),
        ("mprotect", KILLED),
        ("exec", KILLED),
    ] {
        let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
        let tracker = tracker(&scene, &sample, &format!("question={deed}")).serve();
        let peer = register(&tracker, &sample);
        let who = format!("the process that asked {} how much it has", peer.address());
        tracker.says(&format!("{who} ended: {end}"));
        let log = tracker.stop().stderr;
        assert!(
            !log.contains(&format!("attack {deed} at question: done")),
            "{log}"
        );
    }
}

#[test]
fn who_answers_and_does_what_it_may_not_is_killed_and_crashes_nobody_else() {
    for deed in ["exec", "connect"] {
        let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
        let tracker = tracker(&scene, &sample, &format!("connection={deed}")).serve();
        let answers = ask(&scene, &tracker);
        assert_eq!(answers, ["", ""], "{deed}");
        tracker.says(KILLED);
        let stopped = tracker.stop();
        let restarted = stopped.stderr.contains("it is started again");
        assert!(!restarted, "the doors did not feel it: {stopped:#?}");
    }
}

#[test]
fn who_reads_the_configuration_writes_nothing_and_executes_nothing() {
    for (deed, end) in [
        ("create", &*format!("attack create at reader: {DENIED}")),
        ("exec", KILLED),
        ("connect", KILLED),
    ] {
        let scene = Scene::new();
        fs::write(scene.path("tracker.toml"), "open = true\n").expect("written");
        let tracker = scene
            .cascade("tracker")
            .args(["-l", "127.0.0.1:0", "-c", "tracker.toml"])
            .env(FAULT, format!("reader={deed}"))
            .serve();
        tracker.process().signal(Signal::SIGHUP);
        tracker.says(end);
        assert_eq!(trackers::list(tracker.address(), &[7; 32]), []);
        tracker.stop();
    }
}

#[test]
fn what_serves_a_connection_of_inetds_is_confined_like_any_other() {
    for (deed, reply, said) in [
        (
            "open",
            &b"line\n"[..],
            &*format!("attack open at connection: {DENIED}"),
        ),
        (
            "create",
            b"line\n",
            &format!("attack create at connection: {DENIED}"),
        ),
        ("exec", b"", KILLED),
        ("connect", b"", KILLED),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut client = clients::connect(listener.local_addr().expect("an address"));
        let (socket, _) = listener.accept().expect("a client");
        let copy = || Stdio::from(std::os::fd::OwnedFd::from(socket.try_clone().expect("one")));
        let inetd = Command::new(env!("CARGO_BIN_EXE_cascade"))
            .args(["echo", "serve", "-v", "--inetd"])
            .env(FAULT, format!("connection={deed}"))
            .stdin(copy())
            .stdout(copy())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a process");
        drop(socket);
        let _ = client.write_all(b"line\n");
        let _ = client.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        let ended = inetd.wait_with_output().expect("it ends");
        let log = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(answer, reply, "{deed}: {log}");
        assert!(log.contains(said), "{deed}: {log}");
    }
}

/// A line of what the kernel says of a process.
#[track_caller]
fn kernel_says(pid: Pid, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.expect("the kernel says that").trim().to_owned()
}

/// All processes below this one.
fn below(pid: Pid) -> Vec<Pid> {
    let children = procfs::children(pid).into_iter();
    children
        .flat_map(|child| [vec![child], below(child)].concat())
        .collect()
}

#[test]
fn those_who_tell_become_another_user_below_another_root_as_well() {
    if !is_root() {
        skip("only root can change its user");
        return;
    }
    let (scene, sample) = (Scene::new(), Sample::new("data", 10_000, 1000));
    let (root, run) = (scene.directory("root"), scene.directory("run"));
    for path in [scene.path(""), run.clone()] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    chown(&run, Some(NOBODY), None).expect("an owner");
    let control = run.join("control");
    let tracker = scene
        .cascade("tracker")
        .args([
            "-l",
            "127.0.0.1:0",
            "--sandbox",
            "require",
            "--user",
            "65534:65534",
        ])
        .arg("--chroot")
        .arg(&root)
        .arg("--control")
        .arg(&control)
        .args(["--http", "127.0.0.1:0"])
        .arg(sample.write_cascade(&scene.path("")))
        .serve();
    let main = tracker.process().pid();
    let told = || scene.cascade("status").arg(&control).run();
    told().assert_code(0);
    let socket = fs::metadata(&control).expect("it is there");
    assert_eq!((socket.uid(), socket.mode() & 0o777), (NOBODY, 0o600));
    // The reader and its keeper stay where the files are.
    let reporter = procfs::children(main).into_iter().rev().find(|keeper| {
        fs::read_link(format!("/proc/{keeper}/root")).is_ok_and(|link| link == *root)
    });
    let reporter = reporter.expect("the keeper of those who tell");
    eventually("all of them run", || below(reporter).len() == 4);
    for pid in [vec![reporter], below(reporter)].concat() {
        for (name, expected) in [
            ("Uid:", "65534\t65534\t65534\t65534"),
            ("CapEff:", "0000000000000000"),
        ] {
            assert_eq!(kernel_says(pid, name), expected, "{pid}");
        }
        assert_eq!(kernel_says(pid, "NoNewPrivs:"), "1");
        let link = fs::read_link(format!("/proc/{pid}/root")).expect("a root");
        assert_eq!(link, *root, "{pid}");
    }
    for pid in below(reporter) {
        assert_eq!(kernel_says(pid, "Seccomp:"), "2", "{pid}");
    }
    let _peer = register(&tracker, &sample);
    eventually("its peer was asked", || {
        told().stdout.contains("1 known to have all")
    });
    tracker.stop();
    assert!(!Path::new(&control).exists(), "its user may remove it");
    scene.assert_nothing_left();
}
