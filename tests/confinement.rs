//! What is left to a process that strangers have taken over, told by that process: on demand the program attacks from
//! within each of its roles. Needs a build with the feature `faults` (make check).

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::time::Duration;

use common::process::Server;
use common::sample::Sample;
use common::scene::{Invocation, Scene};
use common::subject::MODELS;
use common::trackers;
use common::{eventually, is_root, skip};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// The faults that are wanted.
const FAULT: &str = "CASCADE_FAULT";
const DENIED: &str = "Permission denied";
const KILLED: &str = "signal 31 (SIGSYS)";
const SEGMENTATION: &str = "signal 11 (SIGSEGV)";
/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// An echo server of this model.
fn echo<'a>(scene: &'a Scene, model: &str) -> Invocation<'a> {
    let serve = scene
        .cascade("echo")
        .args(["serve", "-v", "--model", model]);
    serve.args(["-l", "127.0.0.1:0"])
}

/// What comes back for a line; nothing where the connection just ends.
fn exchange(server: &Server) -> Vec<u8> {
    let mut reply = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(server.address()) {
        // A server that dies of the attack may take nothing, and reset the connection.
        let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
        let _ = stream.write_all(b"line\n");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut reply);
    }
    reply
}

#[test]
fn whatever_serves_a_connection_opens_no_file_and_goes_on() {
    for model in MODELS {
        let scene = Scene::new();
        let faults = "connection=open,connection=create";
        let server = echo(&scene, model).env(FAULT, faults).serve();
        assert_eq!(exchange(&server), b"line\n", "{model}");
        server.says(&format!("attack open at connection: {DENIED}"));
        server.says(&format!("attack create at connection: {DENIED}"));
        server.stop();
    }
}

#[test]
fn either_layer_alone_keeps_files_closed() {
    for missing in ["kernel=no-seccomp", "kernel=no-landlock"] {
        let scene = Scene::new();
        let faults = format!("{missing},connection=open");
        let server = echo(&scene, "process").env(FAULT, faults).serve();
        assert_eq!(exchange(&server), b"line\n");
        server.says(&format!("attack open at connection: {DENIED}"));
        server.stop();
    }
}

#[test]
fn a_child_that_executes_or_connects_is_killed_and_counted_as_crashed() {
    for deed in ["exec", "connect"] {
        for model in ["process", "prefork"] {
            let scene = Scene::new();
            let fault = format!("connection={deed}");
            let server = echo(&scene, model).env(FAULT, fault).serve();
            assert_eq!(exchange(&server), b"", "{deed} {model}");
            server.says(KILLED);
            let ended = server.stop();
            assert!(ended.stderr.contains("crashed 1"), "{ended:#?}");
        }
    }
}

#[test]
fn where_all_connections_share_a_process_it_dies_rather_than_to_execute() {
    for model in ["iterative", "thread", "prethread", "event"] {
        let scene = Scene::new();
        let server = echo(&scene, model).env(FAULT, "connection=exec").serve();
        assert_eq!(exchange(&server), b"", "{model}");
        server.finish().assert_signal(Signal::SIGSYS);
    }
}

#[test]
fn a_trackers_child_cannot_write_to_the_registry_in_any_way() {
    for (deed, end) in [
        ("write", SEGMENTATION),
        ("mprotect", KILLED),
        ("remove", KILLED),
        ("forge", KILLED),
    ] {
        let scene = Scene::new();
        let fault = format!("connection={deed}");
        let tracker = scene
            .cascade("tracker")
            .args(["--open", "-v", "-l", "127.0.0.1:0"]);
        let tracker = tracker.env(FAULT, fault).serve();
        assert_eq!(exchange(&tracker), b"", "{deed}");
        tracker.says(end);
        let ended = tracker.stop();
        assert!(ended.stderr.contains("crashed 1"), "{deed}: {ended:#?}");
        assert!(!ended.stderr.contains(": done\n"), "{deed}: {ended:#?}");
    }
}

#[test]
fn the_registry_is_sealed_though_nothing_is_confined() {
    let scene = Scene::new();
    let tracker = scene
        .cascade("tracker")
        .args(["--open", "--sandbox", "off"]);
    let faults = "connection=mprotect,connection=remove";
    let tracker = tracker
        .args(["-l", "127.0.0.1:0"])
        .env(FAULT, faults)
        .serve();
    // The attack fails, and the child goes on to serve.
    let peers = trackers::list(tracker.address(), &[7; 32]);
    assert_eq!(peers, []);
    tracker.says(&format!("attack mprotect at connection: {DENIED}"));
    tracker.says(&format!("attack remove at connection: {DENIED}"));
    tracker.says("sandbox: off");
    tracker.stop();
}

/// A file, a peer that has it, and a tracker that knows the peer.
struct Network {
    scene: Scene,
    sample: Sample,
    tracker: Server,
    seed: Server,
}

impl Network {
    fn new() -> Self {
        let scene = Scene::new();
        let sample = Sample::new("data", 100_000, 10_000);
        let tracker = scene.tracker();
        let directory = scene.directory("seed");
        sample.write_data(&directory);
        let seed = scene.cascade("peer").args(["-l", "127.0.0.1:0"]);
        let seed = seed
            .tracker(tracker.address())
            .arg(sample.write_cascade(&directory));
        let seed = seed.serve();
        eventually("the tracker knows the peer", || {
            !trackers::list(tracker.address(), &sample.hash()).is_empty()
        });
        Self {
            scene,
            sample,
            tracker,
            seed,
        }
    }

    /// A download in which these faults are wanted.
    fn get(&self, faults: &str) -> Invocation<'_> {
        let directory = self.scene.directory("get");
        let get = self.scene.cascade("get").arg("-v").env(FAULT, faults);
        get.tracker(self.tracker.address())
            .arg(self.sample.write_cascade(&directory))
    }

    fn end(self) {
        self.seed.stop();
        self.tracker.stop();
    }
}

#[test]
fn no_role_of_a_download_opens_a_file_of_others_or_connects_elsewhere() {
    let network = Network::new();
    let attacks = [
        ("verifier", "open"),
        ("announcer", "open"),
        ("announcer", "connect"),
        ("downloader", "open"),
        ("downloader", "create"),
        ("hasher", "open"),
        ("worker", "open"),
        ("worker", "create"),
        ("worker", "connect"),
    ];
    let faults: Vec<String> = attacks
        .iter()
        .map(|(role, deed)| format!("{role}={deed}"))
        .collect();
    let get = network.get(&faults.join(","));
    // Something to verify.
    fs::write(network.scene.path("get/data.part"), [0; 20_000]).expect("a file");
    let ended = get.run().assert_code(0);
    for (role, deed) in attacks {
        let line = format!("attack {deed} at {role}: {DENIED}");
        assert!(ended.stderr.contains(&line), "{line}: {ended:#?}");
    }
    network
        .sample
        .assert_complete(&network.scene.path("get/data"));
    network.end();
}

#[test]
fn a_role_of_a_download_that_executes_a_program_is_killed() {
    for role in ["verifier", "announcer", "downloader", "hasher", "worker"] {
        let network = Network::new();
        let get = network.get(&format!("{role}=exec"));
        fs::write(network.scene.path("get/data.part"), [0; 20_000]).expect("a file");
        let process = get.start();
        eventually(&format!("the {role} is killed"), || {
            process.stderr().contains(KILLED)
        });
        drop(process);
        network.end();
    }
}

#[test]
fn a_peers_child_and_its_announcer_only_look_at_what_is_present() {
    for (role, deed, end) in [
        ("connection", "write", SEGMENTATION),
        ("connection", "mprotect", KILLED),
        ("connection", "remove", KILLED),
        ("announcer", "write", SEGMENTATION),
        ("worker", "mprotect", KILLED),
    ] {
        let network = Network::new();
        let directory = network.scene.directory("attacked");
        // It has half of the file, and so has to serve, to announce and to download.
        let part = network.sample.part(&directory.join("data"));
        fs::write(part, &network.sample.bytes[..50_000]).expect("a file");
        let peer = network
            .scene
            .cascade("peer")
            .args(["-v", "-l", "127.0.0.1:0"]);
        let peer = peer
            .tracker(network.tracker.address())
            .env(FAULT, format!("{role}={deed}"))
            .arg(network.sample.write_cascade(&directory))
            .serve();
        exchange(&peer);
        peer.says(end);
        peer.stop();
        network.end();
    }
}

#[test]
fn the_saver_of_a_state_opens_nothing_else_and_a_state_is_saved() {
    let scene = Scene::new();
    let directory = scene.directory("state");
    let tracker = scene
        .cascade("tracker")
        .args(["--open", "-l", "127.0.0.1:0"]);
    let tracker = tracker
        .arg("--state")
        .arg(directory.join("peers"))
        .env(FAULT, "saver=open,saver=create,connection=open")
        .serve();
    tracker.says(&format!("attack open at saver: {DENIED}"));
    tracker.says(&format!("attack create at saver: {DENIED}"));
    trackers::list(tracker.address(), &[7; 32]);
    tracker.says(&format!("attack open at connection: {DENIED}"));
    fs::remove_file(directory.join("peers")).expect("it was tried out at the start");
    tracker.stop();
    let state = fs::read_to_string(directory.join("peers")).expect("it was saved at the end");
    assert!(state.starts_with("cascade tracker state 1\n"), "{state}");
}

#[test]
fn what_is_required_and_cannot_be_had_is_an_error_and_otherwise_is_said() {
    let scene = Scene::new();
    for (missing, said) in [
        ("kernel=no-landlock", "no Landlock (the kernel has none)"),
        (
            "kernel=no-seccomp",
            "system calls not filtered (the kernel cannot)",
        ),
    ] {
        let ended = echo(&scene, "process")
            .args(["--sandbox", "require"])
            .env(FAULT, missing)
            .run()
            .assert_code(1);
        let error = ended.error();
        assert!(
            error.starts_with(
                "cascade: cannot confine as --sandbox=require wants: this kernel has no "
            ),
            "{error}"
        );
        let server = echo(&scene, "process").env(FAULT, missing).serve();
        server.says(said);
        server.stop();
    }
}

#[test]
fn the_log_says_once_what_is_in_force() {
    let scene = Scene::new();
    let server = echo(&scene, "event").serve();
    assert_eq!(exchange(&server), b"line\n");
    let ended = server.stop();
    assert_eq!(
        ended
            .stderr
            .matches("sandbox: no new privileges, limits")
            .count(),
        1
    );
}

/// A line of /proc/PID/status, without its name.
fn status(pid: Pid, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.expect("the kernel says that").trim().to_owned()
}

#[test]
fn a_server_becomes_another_user_below_another_root_for_good() {
    if !is_root() {
        skip("only root can change its user");
        return;
    }
    let scene = Scene::new();
    let root = scene.directory("root");
    let state = scene.directory("state");
    for path in [scene.path(""), state.clone()] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    chown(&state, Some(NOBODY), None).expect("an owner");
    let tracker = scene
        .cascade("tracker")
        .args(["--open", "--user", "65534:65534"]);
    let tracker = tracker
        .arg("--chroot")
        .arg(&root)
        .arg("--state")
        .arg(state.join("peers"));
    let tracker = tracker
        .args(["--sandbox", "require", "-l", "127.0.0.1:0"])
        .serve();
    let pid = tracker.process().pid();
    assert_eq!(status(pid, "Uid:"), "65534\t65534\t65534\t65534");
    assert_eq!(status(pid, "Gid:"), "65534\t65534\t65534\t65534");
    assert_eq!(status(pid, "Groups:"), "65534");
    assert_eq!(status(pid, "CapEff:"), "0000000000000000");
    assert_eq!(status(pid, "NoNewPrivs:"), "1");
    assert_eq!(status(pid, "Seccomp:"), "2");
    assert_eq!(
        fs::read_link(format!("/proc/{pid}/root")).expect("a root"),
        root
    );
    assert_eq!(trackers::list(tracker.address(), &[7; 32]), []);
    tracker.says("; user 65534:65534 (65534:65534); root directory ");
    tracker.stop();
    let saved = fs::metadata(state.join("peers")).expect("it was saved");
    assert_eq!(saved.uid(), NOBODY);
}

#[test]
fn a_download_as_another_user_belongs_to_that_user_and_dies_with_its_supervisor() {
    if !is_root() {
        skip("only root can change its user");
        return;
    }
    let network = Network::new();
    let get = network
        .get("")
        .args(["--user", "65534:65534", "--seed-for", "1h"]);
    let directory = network.scene.path("get");
    fs::set_permissions(network.scene.path(""), fs::Permissions::from_mode(0o755)).expect("a mode");
    chown(&directory, Some(NOBODY), None).expect("an owner");
    let process = get.start();
    eventually("the file is there", || directory.join("data").exists());
    assert_eq!(
        fs::metadata(directory.join("data")).expect("it is").uid(),
        NOBODY
    );
    // Its processes have changed their user before they were forked, and asked to die with it afterwards.
    process.signal(Signal::SIGKILL);
    process.finish();
    network.end();
}

#[test]
fn a_user_that_there_is_not_or_that_is_root_is_an_error() {
    let scene = Scene::new();
    for (user, reason) in [
        ("there-is-no-such-user", "there is no such user"),
        ("root", "that is root"),
        ("0", "that is root"),
    ] {
        let ended = echo(&scene, "process")
            .args(["--user", user])
            .run()
            .assert_code(1);
        assert_eq!(
            ended.error(),
            format!("cascade: cannot become {user}: {reason}")
        );
    }
    let ended = echo(&scene, "process")
        .args(["--user", ":"])
        .run()
        .assert_code(2);
    assert!(
        ended.error().contains("it is not NAME or NAME:GROUP"),
        "{ended:#?}"
    );
}
