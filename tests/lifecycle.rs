//! What signals ask of a server: to end, to say how it is, to look at its configuration again. Under every model.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::process::{Process, Server};
use common::sample::Sample;
use common::scene::Scene;
use common::subject::{Kind, Subject, peer};
use common::trackers::nobody_there;
use common::{clients, eventually, holds_within, procfs, trackers};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// No test waits as long.
const AGES: Duration = Duration::from_secs(15);

/// A client that has sent half a request to a server that waits for the rest for ever.
#[track_caller]
fn stuck_client(subject: &Subject) -> TcpStream {
    let mut stuck = subject.connect();
    let request = subject.request(1);
    stuck.write_all(&request[..5]).expect("the server reads");
    subject.wait_for_accepts(1);
    stuck
}

#[track_caller]
fn wait_until_nobody_listens(address: SocketAddr) {
    eventually("nobody listens", || TcpStream::connect(address).is_err());
}

fn what_is_stuck_is_ended_at_the_end_of_the_grace(kind: Kind, model: &'static str) {
    let options = ["-v", "--grace", "600ms", "--request-timeout", "1h"];
    let subject = Subject::start_with(kind, model, &options);
    let _stuck = stuck_client(&subject);
    let asked = Instant::now();
    let tally = subject.stop();
    let took = asked.elapsed();
    assert!(
        took >= Duration::from_millis(580) && took < AGES,
        "{took:?}"
    );
    assert!(tally.contains("disconnected 1"), "{tally}");
}

fn a_second_signal_ends_it_at_once(kind: Kind, model: &'static str) {
    let options = ["-v", "--grace", "1h", "--request-timeout", "1h"];
    let subject = Subject::start_with(kind, model, &options);
    let _stuck = stuck_client(&subject);
    subject.server.process().signal(Signal::SIGINT);
    wait_until_nobody_listens(subject.server.address());
    subject.server.process().signal(Signal::SIGINT);
    let Subject { server, scene, .. } = subject;
    server.finish().assert_code(0);
    scene.assert_nothing_left();
}

fn whoever_has_just_connected_is_answered(kind: Kind, model: &'static str) {
    let subject = Subject::start_with(kind, model, &["-v"]);
    let mut newcomer = subject.connect();
    subject.wait_for_accepts(1);
    subject.server.process().signal(Signal::SIGTERM);
    // A connect that meets a listener which is being closed may be repeated by the system after a second: too late.
    let port = subject.server.address().port();
    eventually("nobody listens", || !procfs::is_listened_at(port));
    newcomer
        .write_all(&subject.request(1))
        .expect("the server reads");
    subject.check_reply(&mut newcomer, 1);
    let Subject { server, scene, .. } = subject;
    server.finish().assert_code(0);
    scene.assert_nothing_left();
}

fn it_says_how_it_is_when_it_is_asked(kind: Kind, model: &'static str) {
    let subject = Subject::start_with(kind, model, &["-v"]);
    subject.exchange(1);
    let held = subject.connect();
    subject.wait_for_accepts(2);
    let mut block = Vec::new();
    eventually("the status is as it is", || {
        let process = subject.server.process();
        let before = status(process).len();
        process.signal(Signal::SIGUSR1);
        holds_within(Duration::from_secs(5), || status(process).len() > before);
        block = status(process).split_off(before);
        block[0] == "connections: 1 now, 2 ever: done 1"
    });
    let has = |name: &str| block.iter().any(|line| line.starts_with(name));
    assert!(has("bytes: "), "{block:?}");
    let sent = block.iter().find_map(|line| {
        let number = line.strip_prefix("bytes: ")?.strip_suffix(" sent")?;
        number.parse::<usize>().ok()
    });
    let least = match kind {
        Kind::Echo => subject.request(1).len(),
        Kind::Tracker => 5,
        Kind::Peer => 9 + common::subject::BLOCK,
    };
    assert_eq!(sent, Some(least), "{block:?}");
    if kind != Kind::Echo {
        assert!(has("files: ") && has("peers: "), "{block:?}");
    }
    assert!(has("children: ") || has("threads: "), "{block:?}");
    // Whoever was there is still there.
    let (mut held, request) = (held, subject.request(2));
    held.write_all(&request).expect("the server reads");
    subject.check_reply(&mut held, 2);
    drop(held);
    let Subject { server, scene, .. } = subject;
    server.stop();
    scene.assert_nothing_left();
}

/// The lines of its status blocks.
fn status(process: &Process) -> Vec<String> {
    let log = process.stderr();
    let lines = log.lines();
    lines
        .filter_map(|line| Some(line.split_once("]: status: ")?.1.to_owned()))
        .collect()
}

#[test]
fn a_download_that_serves_lets_its_transfers_finish_too() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 5000, 1000));
    let options = ["-v", "-l", "127.0.0.1:0", "--grace", "600ms"];
    let get = scene
        .cascade("get")
        .tracker(nobody_there())
        .args(options)
        .args(["--request-timeout", "1h"])
        .arg(sample.write_cascade(&scene.path("")))
        .start();
    let mut address = None;
    eventually("it listens", || {
        address = get.stderr().lines().find_map(|line| {
            let (_, address) = line.split_once("]: listening on ")?;
            address.parse().ok()
        });
        address.is_some()
    });
    let mut stuck = clients::connect(address.expect("an address"));
    stuck.write_all(b"CASC").expect("it reads");
    eventually("it accepts", || get.stderr().contains("]: accept "));
    get.signal(Signal::SIGUSR1);
    eventually("it says how it is", || {
        let status = status(&get);
        status
            .iter()
            .any(|line| line.starts_with("connections: 1 now, 1 ever"))
    });
    let asked = Instant::now();
    get.signal(Signal::SIGTERM);
    get.finish().assert_signal(Signal::SIGTERM);
    let took = asked.elapsed();
    assert!(
        took >= Duration::from_millis(580) && took < AGES,
        "{took:?}"
    );
    scene.assert_nothing_left();
}

/// A tracker with a configuration file, which tracks files of these hashes.
struct Configured {
    scene: Scene,
    path: PathBuf,
    server: Option<Server>,
}

impl Configured {
    fn start(model: &'static str, hashes: &[[u8; 32]]) -> Self {
        let scene = Scene::new();
        let path = scene.path("config.json");
        let mut configured = Self {
            scene,
            path,
            server: None,
        };
        configured.write(hashes);
        let tracker = configured.scene.cascade("tracker");
        let tracker = tracker.args(["-v", "-l", "127.0.0.1:0", "--model", model, "-c"]);
        configured.server = Some(tracker.arg(&configured.path).serve());
        configured
    }

    fn write(&self, hashes: &[[u8; 32]]) {
        let hashes: Vec<String> = hashes.iter().map(hex::encode).collect();
        let text = format!("{{\"allowedhashes\": {hashes:?}}}");
        fs::write(&self.path, text).expect("the configuration can be written");
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it was started")
    }

    /// Asks it to read its configuration again, and waits until it says this.
    #[track_caller]
    fn read_again(&self, says: &str) {
        let count = || self.server().process().stderr().matches(says).count();
        let before = count();
        self.server().process().signal(Signal::SIGHUP);
        eventually("it has read its configuration again", || count() > before);
    }

    /// The status of a subscription, once the server answers as it should.
    #[track_caller]
    fn subscribes(&self, hash: &[u8; 32], number: usize, expected: u8) {
        eventually("the answer is another one", || {
            let request = trackers::request(2, hash, peer(number));
            trackers::ask(self.server().address(), &request)
                .is_ok_and(|(status, _)| status == expected)
        });
    }
}

fn a_tracker_reads_its_configuration_again(model: &'static str) {
    let [one, two, three] = [[1; 32], [2; 32], [3; 32]];
    let tracker = Configured::start(model, &[one, two]);
    tracker.subscribes(&one, 1, 0);
    tracker.subscribes(&two, 2, 0);
    tracker.subscribes(&three, 3, 1);
    tracker.write(&[one, three]);
    tracker.read_again("configuration reloaded: ");
    tracker.subscribes(&three, 3, 0);
    tracker.subscribes(&two, 2, 1);
    // Who was there and is still allowed has stayed.
    let address = tracker.server().address();
    assert_eq!(trackers::list(address, &one), [peer(1)]);
    tracker.read_again("the configuration is as it was");
    let Configured { server, scene, .. } = tracker;
    server.expect("it was started").stop();
    scene.assert_nothing_left();
}

fn a_broken_configuration_changes_nothing(model: &'static str) {
    let hash = [1; 32];
    let tracker = Configured::start(model, &[hash]);
    tracker.subscribes(&hash, 1, 0);
    let mut under_way = clients::connect(tracker.server().address());
    let request = trackers::request(2, &hash, peer(2));
    under_way.write_all(&request[..20]).expect("it reads");
    for broken in [
        "{",
        "{\"allowedhashes\": [\"x\"]}",
        "{\"allowedhashes\": []}",
    ] {
        fs::write(&tracker.path, broken).expect("the configuration can be written");
        tracker.read_again("; the old configuration stays in force");
    }
    fs::remove_file(&tracker.path).expect("it is there");
    tracker.read_again("; the old configuration stays in force");
    under_way.write_all(&request[20..]).expect("it reads");
    let mut reply = Vec::new();
    under_way.read_to_end(&mut reply).expect("a reply");
    assert_eq!(reply.first(), Some(&0));
    tracker.subscribes(&hash, 1, 0);
    let Configured { server, scene, .. } = tracker;
    server.expect("it was started").stop();
    scene.assert_nothing_left();
}

/// A peer that watches a directory.
struct Watcher {
    scene: Scene,
    directory: PathBuf,
    server: Option<Server>,
}

impl Watcher {
    fn start(options: &[&str], files: &[&Sample]) -> Self {
        let scene = Scene::new();
        let directory = scene.directory("watched");
        let mut watcher = Self {
            scene,
            directory,
            server: None,
        };
        files.iter().for_each(|file| watcher.put(file));
        let peer = watcher.scene.cascade("peer").args(options);
        let peer = peer.args(["-v", "-l", "127.0.0.1:0", "--watch-dir", "-d"]);
        watcher.server = Some(peer.arg(&watcher.directory).serve());
        watcher
    }

    fn put(&self, file: &Sample) {
        file.write_data(&self.directory);
        file.write_cascade(&self.directory);
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it was started")
    }

    #[track_caller]
    fn read_again(&self, says: &str) {
        let count = || self.server().process().stderr().matches(says).count();
        let before = count();
        self.server().process().signal(Signal::SIGHUP);
        eventually("it has read the list again", || count() > before);
    }

    /// What it answers to a request for a block of a file.
    fn answer(&self, file: &Sample) -> Option<(u8, Vec<u8>)> {
        let request = clients::request(&file.hash(), 0);
        clients::ask(self.server().address(), &request).ok()
    }

    fn serves(&self, file: &Sample) -> bool {
        self.answer(file)
            .is_some_and(|(status, block)| status == 0 && Some(&block[..]) == file.block(0))
    }

    fn does_not_know(&self, file: &Sample) -> bool {
        self.answer(file).is_some_and(|(status, _)| status == 1)
    }

    #[track_caller]
    fn stop(self) {
        let Self { server, scene, .. } = self;
        server.expect("it was started").stop();
        scene.assert_nothing_left();
    }
}

fn files() -> [Sample; 3] {
    [1, 2, 3].map(|number| Sample::new(&format!("file {number}"), 9000 + number, 1000))
}

fn a_peer_serves_what_comes_and_no_longer_what_goes(model: &'static str) {
    let [one, two, three] = files();
    let watcher = Watcher::start(&["--model", model], &[&one]);
    eventually("it serves the first", || watcher.serves(&one));
    assert!(watcher.does_not_know(&two));
    watcher.put(&two);
    watcher.put(&three);
    watcher.read_again(": 2 new, 0 gone");
    eventually("it serves the second", || watcher.serves(&two));
    eventually("it serves the third", || watcher.serves(&three));
    assert!(watcher.serves(&one));
    let cascade = watcher.directory.join("file 1.cascade");
    fs::remove_file(cascade).expect("it is there");
    watcher.read_again(": 0 new, 1 gone");
    eventually("it has forgotten the first", || watcher.does_not_know(&one));
    assert!(watcher.serves(&two));
    // And back again.
    watcher.put(&one);
    watcher.read_again(": 1 new, 0 gone");
    eventually("it serves the first again", || watcher.serves(&one));
    watcher.stop();
}

fn a_broken_cascade_file_is_named_and_left_out_at_a_reload(model: &'static str) {
    let [one, two, three] = files();
    let watcher = Watcher::start(&["--model", model, "--idle-timeout", "1h"], &[&one, &two]);
    eventually("it serves the first", || watcher.serves(&one));
    let held = (model != "iterative").then(|| clients::connect(watcher.server().address()));
    fs::remove_file(watcher.directory.join("file 2.cascade")).expect("it is there");
    watcher.put(&three);
    fs::write(
        watcher.directory.join("cut.cascade"),
        b"CASCADE1 and no more",
    )
    .expect("written");
    fs::create_dir(watcher.directory.join("directory.cascade")).expect("made");
    symlink("nowhere", watcher.directory.join("dangling.cascade")).expect("linked");
    watcher.read_again(": 1 new, 1 gone");
    let log = watcher.server().process().stderr();
    for name in ["cut", "directory", "dangling"] {
        assert!(log.contains(&format!("{name}.cascade: ")), "{name}: {log}");
    }
    eventually("it serves the third", || watcher.serves(&three));
    eventually("it has forgotten the second", || {
        watcher.does_not_know(&two)
    });
    if let Some(mut held) = held {
        let request = clients::request(&one.hash(), 1);
        held.write_all(&request).expect("it was not closed");
        let (status, block) = clients::response(&mut held).expect("a response");
        assert!(status == 0 && Some(&block[..]) == one.block(1));
    }
    watcher.stop();
}

fn copies_of_a_file_are_all_served_and_one_may_go(model: &'static str) {
    let [one, two, _] = files();
    let watcher = Watcher::start(&["--model", model, "-t", "127.0.0.1:1"], &[&one, &two]);
    eventually("it serves the file", || watcher.serves(&one));
    // The same cascade file again, without the data, and once more with them.
    let cascade = fs::read(watcher.directory.join("file 1.cascade")).expect("it is there");
    for name in ["empty", "full"] {
        let path = watcher.directory.join(format!("{name}.cascade"));
        fs::write(path, &cascade).expect("written");
    }
    fs::write(watcher.directory.join("full"), &one.bytes).expect("written");
    watcher.read_again(": 2 new, 0 gone");
    let log = || watcher.server().process().stderr();
    eventually("the copy is there", || log().contains("full: complete"));
    assert!(watcher.serves(&one));
    // Whichever goes, the other is there.
    for (gone, back) in [("full", 1), ("file 1", 0)] {
        let path = watcher.directory.join(format!("{gone}.cascade"));
        fs::remove_file(&path).expect("it is there");
        watcher.read_again(": 0 new, 1 gone");
        if back == 1 {
            assert!(watcher.serves(&one));
            fs::write(&path, &cascade).expect("written");
            watcher.read_again(": 1 new, 0 gone");
            eventually("both are there", || {
                log().matches("full: complete").count() == 2
            });
        }
        eventually("the other is served", || watcher.serves(&one));
    }
    for name in ["full", "empty"] {
        fs::remove_file(watcher.directory.join(format!("{name}.cascade"))).expect("it is there");
    }
    watcher.read_again(": 0 new, 2 gone");
    eventually("all are gone", || watcher.does_not_know(&one));
    assert!(watcher.serves(&two));
    watcher.stop();
}

#[test]
fn a_file_that_appears_is_downloaded_announced_and_served() {
    let scene = Scene::new();
    let tracker = scene.tracker();
    let address = tracker.address().to_string();
    let [one, two, _] = files();
    let seed = scene.directory("seed");
    two.write_data(&seed);
    let seed = scene
        .cascade("peer")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0"])
        .arg(two.write_cascade(&seed))
        .serve();
    // It may begin with nothing.
    let watcher = Watcher::start(&["-t", &address], &[]);
    let own = watcher.server().address();
    let lists = |file: &Sample, peer: SocketAddr| {
        let listed = trackers::list(tracker.address(), &file.hash());
        listed
            .into_iter()
            .any(|other| SocketAddr::from(other) == peer)
    };
    watcher.put(&one);
    two.write_cascade(&watcher.directory);
    watcher.read_again(": 2 new, 0 gone");
    let path = watcher.directory.join("file 2");
    eventually("it is downloaded", || path.exists());
    two.assert_complete(&path);
    for file in [&one, &two] {
        eventually("it is announced", || lists(file, own));
        eventually("it is served", || watcher.serves(file));
    }
    fs::remove_file(watcher.directory.join("file 1.cascade")).expect("it is there");
    watcher.read_again(": 0 new, 1 gone");
    eventually("the tracker is told that it went", || !lists(&one, own));
    assert!(lists(&two, own));
    watcher.stop();
    seed.stop();
    tracker.stop();
}

#[test]
fn a_download_that_is_not_wanted_any_more_ends_and_another_takes_its_place() {
    let [one, mut other, _] = files();
    other.name = one.name.clone();
    let tracker = nobody_there().to_string();
    let watcher = Watcher::start(&["-t", &tracker], &[]);
    let cascade = one.write_cascade(&watcher.directory);
    let part = one.part(&watcher.directory.join("file 1"));
    watcher.read_again(": 1 new, 0 gone");
    eventually("the download begins", || part.exists());
    fs::remove_file(cascade).expect("it is there");
    watcher.read_again(": 0 new, 1 gone");
    eventually("nothing is left of it", || !part.exists());
    // One that goes and one that comes have the same place.
    one.write_cascade(&watcher.directory);
    watcher.read_again(": 1 new, 0 gone");
    eventually("the download begins again", || part.exists());
    watcher.put(&other);
    watcher.read_again(": 1 new, 1 gone");
    eventually("the other is served", || watcher.serves(&other));
    eventually("nothing is left of the first", || !part.exists());
    watcher.stop();
}

/// What was handed to a listener its successor has as well.
#[test]
fn a_listener_that_is_started_again_serves_what_came_and_not_what_went() {
    let [one, two, three] = files();
    let watcher = Watcher::start(&[], &[&one, &two]);
    eventually("it serves the first", || watcher.serves(&one));
    fs::remove_file(watcher.directory.join("file 1.cascade")).expect("it is there");
    watcher.put(&three);
    watcher.read_again(": 1 new, 1 gone");
    eventually("it serves the third", || watcher.serves(&three));
    eventually("it has forgotten the first", || watcher.does_not_know(&one));
    let supervisor = watcher.server().process().pid();
    let is_listener = |pid: &Pid| *pid != supervisor;
    let listener = watcher.scene.left().into_iter().find(is_listener);
    kill(listener.expect("it listens"), Signal::SIGKILL).expect("it runs");
    eventually("it is started again", || {
        let log = watcher.server().process().stderr();
        log.contains("the listener ended: signal 9")
    });
    for file in [&two, &three] {
        eventually("it serves what there is", || {
            let address = watcher.server().address();
            TcpStream::connect(address).is_ok() && watcher.serves(file)
        });
    }
    assert!(watcher.does_not_know(&one));
    watcher.stop();
}

#[test]
fn a_directory_to_watch_has_to_be_named() {
    let scene = Scene::new();
    let done = scene
        .cascade("peer")
        .arg("--watch-dir")
        .run()
        .assert_code(2);
    assert!(done.error().contains("--directory <DIR>"), "{done:?}");
    let done = scene
        .cascade("peer")
        .args(["--watch-dir", "-d", "nowhere"])
        .run()
        .assert_code(1);
    assert!(done.error().contains("cannot use directory nowhere"));
}

crate::under_every_model! {
    a_tracker_reads_its_configuration_again: iterative process thread prethread event prefork;
    a_broken_configuration_changes_nothing: iterative process thread prethread event prefork;
    a_peer_serves_what_comes_and_no_longer_what_goes: iterative process thread prethread event prefork;
    a_broken_cascade_file_is_named_and_left_out_at_a_reload: iterative process thread prethread event prefork;
    copies_of_a_file_are_all_served_and_one_may_go: iterative process thread prethread event prefork;
}

crate::every_service_under_every_model! {
    whoever_has_just_connected_is_answered
    what_is_stuck_is_ended_at_the_end_of_the_grace
    a_second_signal_ends_it_at_once
    it_says_how_it_is_when_it_is_asked
}
