//! The configuration of the daemons: the options of the command line, by the same names, in a file.

mod common;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use cascade::cli::Cli;
use cascade::config::{self, DAEMONS};
use clap::{Arg, ArgAction, CommandFactory};
use common::eventually;
use common::process::{Finished, Server};
use common::sample::Sample;
use common::scene::Scene;
use common::{clients, is_root, skip, trackers};
use nix::sys::signal::Signal;

/// Options that make no sense in a file.
const ONLY_TYPED: [&str; 2] = ["config", "check"];

/// A value as one would type it, by what the usage calls it. A new option with a value of a new kind needs one.
fn sample_of(arg: &Arg) -> String {
    if let Some(value) = arg.get_possible_values().last() {
        return value.get_name().into();
    }
    let names = arg.get_value_names().unwrap_or_default();
    let name = names.first().map_or("", |name| name.as_str());
    match name {
        "SECONDS" | "TIME" => "5m",
        "N" | "WORKERS" => "7",
        "RATE" => "2MiB",
        "[ADDR:]PORT" => "127.0.0.1:7777",
        "ADDR:PORT" => "127.0.0.1:7777",
        "HOST:PORT" | "HOST[:PORT]" => "host:7777",
        "ADDR" | "ADDR[:PORT]" => "192.0.2.7",
        "FILE" | "DIR" | "PATH" | "CASCADE|LINK" | "CASCADE|HASH" => "/somewhere",
        "NAME[:GROUP]" => "nobody",
        "NAME" => "status.example",
        "CMD" => "echo \\\"$CASCADE_FILE\\\" done",
        other => panic!("what may {other} of {arg} be? add it here"),
    }
    .into()
}

/// What was understood, for comparison.
fn understood(arguments: &[&str]) -> String {
    let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
    match config::understand(&arguments, &|path| fs::File::open(path)) {
        Ok(understood) => format!("{:?}", understood.cli),
        Err(error) => panic!("{arguments:?}: {error}"),
    }
}

#[test]
fn each_option_of_a_daemon_can_be_given_in_a_file_by_its_own_name() {
    let scene = Scene::new();
    let path = scene.path("daemon.toml");
    let path = path.to_str().expect("text");
    let cli = Cli::command();
    let configured = |command: &&clap::Command| {
        let mut arguments = command.get_arguments();
        arguments.any(|arg| arg.get_id() == "config")
    };
    let configured = cli.get_subcommands().filter(configured);
    let configured: Vec<&str> = configured.map(clap::Command::get_name).collect();
    assert_eq!(configured, DAEMONS);
    for daemon in DAEMONS {
        let command = cli.find_subcommand(daemon).expect("a daemon");
        let mut seen = 0;
        for arg in command.get_arguments() {
            if ONLY_TYPED.contains(&arg.get_id().as_str()) {
                continue;
            }
            let name = arg.get_long().unwrap_or("files");
            // What there must be, and what some options want.
            let base = match (daemon, name) {
                (_, "files") => vec![],
                ("peer", "watch-dir") => vec![("files", "/base"), ("directory", "/data")],
                _ => vec![("files", "/base")],
            };
            let (mut text, mut typed) = (String::new(), vec!["cascade".into(), daemon.into()]);
            let is_flag = !arg.get_action().takes_values();
            let value = if is_flag {
                String::new()
            } else {
                sample_of(arg)
            };
            let all = base
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()));
            for (name, value) in all.chain([(name, value)]) {
                let shown = match (name, value.as_str()) {
                    ("files", value) => value.to_owned(),
                    (name, "") => format!("--{name}"),
                    (name, value) => format!("--{name}={}", value.replace("\\\"", "\"")),
                };
                typed.push(shown);
                text += &match value.as_str() {
                    "" => format!("{name} = true\n"),
                    value => format!("{name} = \"{value}\"\n"),
                };
            }
            let typed: Vec<&str> = typed.iter().map(String::as_str).collect();
            fs::write(path, "").expect("a file");
            let expected = understood(&[&typed[..], &["-c", path]].concat());
            fs::write(path, &text).expect("a file");
            assert_eq!(
                understood(&["cascade", daemon, "-c", path]),
                expected,
                "{text}"
            );
            if matches!(arg.get_action(), ArgAction::Append) {
                let list = text.replace(" = \"", " = [\"").replace("\"\n", "\"]\n");
                let list = list.replace("directory = [\"/data\"]", "directory = \"/data\"");
                fs::write(path, &list).expect("a file");
                assert_eq!(
                    understood(&["cascade", daemon, "-c", path]),
                    expected,
                    "{list}"
                );
            }
            seen += 1;
        }
        assert!(seen > 20, "{daemon} has but {seen} options");
    }
}

#[test]
fn what_is_typed_replaces_what_the_file_says_and_files_are_added() {
    let scene = Scene::new();
    let path = scene.path("peer.toml");
    let path = path.to_str().expect("text");
    let text = "files = ['/a', '/b']\ntracker = ['one:1', 'two:2']\nworkers = 3\nquiet = true\nexec = 'true'\n";
    fs::write(path, text).expect("a file");
    let both = understood(&[
        "cascade", "peer", "-c", path, "-t", "three:3", "-v", "-w4", "/c",
    ]);
    fs::write(path, "").expect("a file");
    let typed = [
        "cascade", "peer", "-c", path, "--exec", "true", "-t", "three:3", "-v", "-w4", "/a", "/b",
        "/c",
    ];
    assert_eq!(both, understood(&typed), "-v puts quiet out of force");
}

#[test]
fn false_is_as_good_as_nothing() {
    let scene = Scene::new();
    let path = scene.path("tracker.toml");
    let path = path.to_str().expect("text");
    fs::write(path, "open = false\nban-private = false\nfiles = []\n").expect("a file");
    let said = understood(&["cascade", "tracker", "-c", path]);
    fs::write(path, "").expect("a file");
    assert_eq!(said, understood(&["cascade", "tracker", "-c", path]));
}

/// What becomes of a daemon with this file, and of its check: the same.
#[track_caller]
fn refused(scene: &Scene, daemon: &str, text: &str, status: i32) -> Finished {
    fs::write(scene.path("daemon.toml"), text).expect("a file");
    let run = || scene.cascade(daemon).args(["-c", "daemon.toml"]);
    let done = run().run().assert_code(status);
    let checked = run().arg("--check").run().assert_code(status);
    assert_eq!(done.error(), checked.error());
    assert_eq!((&*done.stdout, &*checked.stdout), ("", ""));
    done
}

#[test]
fn a_mistake_is_named_with_its_file_and_line() {
    let scene = Scene::new();
    for (daemon, text, place, reason) in [
        (
            "tracker",
            "open = true\n\nttll = 5\n",
            ":3",
            "there is no option 'ttll' (did you mean 'ttl'?)",
        ),
        (
            "tracker",
            "open = true\nport = 80\n",
            ":2",
            "there is no option 'port'",
        ),
        (
            "tracker",
            "ttl = 'soon'\n",
            ":1",
            "invalid value 'soon' for 'ttl': a time is",
        ),
        (
            "tracker",
            "good-ip = [\n'192.0.2.1',\n'here',\n]\n",
            ":3",
            "invalid value 'here' for 'good-ip'",
        ),
        ("tracker", "model = 'evnt'\n", ":1", "(did you mean event?)"),
        (
            "tracker",
            "open = 'yes'\n",
            ":1",
            "'open' must be true or false",
        ),
        (
            "tracker",
            "ttl = true\n",
            ":1",
            "'ttl' cannot be true or false",
        ),
        ("tracker", "ttl = [1, 2]\n", ":1", "'ttl' cannot be a list"),
        (
            "tracker",
            "\nconfig = 'other.toml'\n",
            ":2",
            "'config' belongs on the command line",
        ),
        (
            "peer",
            "check = true\n",
            ":1",
            "'check' belongs on the command line",
        ),
        (
            "peer",
            "help = true\n",
            ":1",
            "'help' belongs on the command line",
        ),
        (
            "peer",
            "[peer]\nquiet = true\n",
            ":1",
            "sections such as [peer] are not supported",
        ),
        ("peer", "files = ['x.cascade'\n", ":", "array"),
        (
            "peer",
            "files = ['cascade://x']\n",
            ":1",
            "a link has the form",
        ),
        (
            "peer",
            "files = ['x.cascade']\n\nquiet = true\nverbose = true\n",
            ":",
            "cannot be used with",
        ),
        ("peer", "\nwatch-dir = true\n", ":", "--directory <DIR>"),
        ("peer", "{}", ":", "JSON, which only a tracker reads"),
        (
            "tracker",
            "{\"port\": 65536}",
            ":",
            "'port' must be a number from 0 to 65535",
        ),
    ] {
        let done = refused(&scene, daemon, text, 2);
        let error = done.error();
        let begin = format!("cascade: cannot understand daemon.toml{place}");
        assert!(
            error.starts_with(&begin) && error.contains(reason),
            "{text}: {error}"
        );
    }
    for daemon in DAEMONS {
        let done = refused(&scene, daemon, "", 2);
        assert!(done.error().contains("in the configuration"), "{done:#?}");
    }
}

#[test]
fn what_the_file_names_must_be_there() {
    let scene = Scene::new();
    fs::write(scene.path("wrong.cascade"), "CASCADE").expect("a file");
    for (daemon, text, reason) in [
        (
            "tracker",
            "files = 'none.cascade'\n",
            "cannot read none.cascade: No such file",
        ),
        (
            "tracker",
            "files = 'wrong.cascade'\n",
            "cannot read wrong.cascade: ",
        ),
        (
            "peer",
            "files = 'none.cascade'\n",
            "cannot read none.cascade: No such file",
        ),
        (
            "tracker",
            "open = true\nlisten = '192.0.2.1:8888'\n",
            "cannot listen on 192.0.2.1:8888",
        ),
        (
            "tracker",
            "open = true\nlisten = '127.0.0.1:0'\nhttp = '192.0.2.1:8080'\n",
            "cannot listen on 192.0.2.1:8080",
        ),
        (
            "tracker",
            "open = true\nlisten = '127.0.0.1:0'\npidfile = 'none/pid'\n",
            "none: No such file",
        ),
        (
            "peer",
            "watch-dir = true\ndirectory = '.'\ncontrol = 'none/control'\n",
            "none: No such file",
        ),
        (
            "tracker",
            "open = true\nuser = 'no one here'\n",
            "cannot become no one here",
        ),
    ] {
        let done = refused(&scene, daemon, text, 1);
        assert!(done.error().contains(reason), "{text}: {done:#?}");
    }
    for path in ["nothing.toml", "."] {
        let done = scene.cascade("tracker").args(["--check", "-c", path]).run();
        let done = done.assert_code(1);
        assert!(
            done.error().starts_with("cascade: cannot read "),
            "{done:#?}"
        );
    }
}

#[test]
fn a_check_says_what_it_understood_and_starts_nothing() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 5000, 1000));
    let etc = scene.directory("etc");
    sample.write_cascade(&etc);
    let text = "files = 'data.cascade'\nlisten = '127.0.0.1:1'\npidfile = 'pid'\nstate = 'peers'\n";
    fs::write(etc.join("tracker.toml"), text).expect("a file");
    let check = |daemon, path| scene.cascade(daemon).args(["--check", "-c", path]).run();
    let done = check("tracker", "etc/tracker.toml").assert_code(0);
    assert_eq!(
        (&*done.stdout, &*done.stderr),
        ("ok: 1 file, at 127.0.0.1:1\n", "")
    );
    let text = "files = 'data.cascade'\ntracker = '127.0.0.1:9'\npidfile = 'pid'\n";
    fs::write(etc.join("peer.toml"), text).expect("a file");
    let done = check("peer", "etc/peer.toml").assert_code(0);
    let said = "ok: 1 file, 1 tracker, at a free port\n";
    assert_eq!((&*done.stdout, &*done.stderr), (said, ""));
    let left = fs::read_dir(&etc).expect("our directory").count();
    assert_eq!(left, 3, "nothing was made");
    // A command line without a file can be checked as well.
    let open = scene
        .cascade("tracker")
        .args(["--check", "--open", "-l", "7"])
        .run();
    assert_eq!(open.assert_code(0).stdout, "ok: any file, at 7\n");
}

#[test]
fn the_examples_that_are_installed_are_right() {
    let scene = Scene::new();
    for daemon in DAEMONS {
        let name = format!("packaging/examples/{daemon}.toml");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let text = fs::read_to_string(example).expect("an example");
        // As it is, and with all that it only shows.
        let is_setting = |line: &&str| {
            let name = line.split_once(" = ").map_or("", |(name, _)| name);
            let is_of_name = |letter: char| letter.is_ascii_lowercase() || letter == '-';
            !name.is_empty() && name.chars().all(is_of_name)
        };
        let shown = |line| {
            str::strip_prefix(line, "# ")
                .filter(is_setting)
                .unwrap_or(line)
        };
        let all: Vec<&str> = text.lines().map(shown).collect();
        assert!(
            all.iter().copied().filter(is_setting).count() > 5,
            "{all:?}"
        );
        let all = all.join("\n");
        for text in [&text, &all] {
            fs::write(scene.path("example.toml"), text).expect("a file");
            let path = scene.path("example.toml");
            let path = path.to_str().expect("text");
            understood(&["cascade", daemon, "-c", path]);
        }
    }
}

/// Writes the file, asks the server to read it again, and waits until it says this.
#[track_caller]
fn read_again(server: &Server, path: &Path, text: &str, says: &str) {
    let count = || server.process().stderr().matches(says).count();
    let before = count();
    fs::write(path, text).expect("a file");
    server.process().signal(Signal::SIGHUP);
    eventually("it has read its configuration again", || count() > before);
}

#[test]
fn a_tracker_reads_its_file_again_and_the_files_that_it_names_then() {
    let scene = Scene::new();
    let (etc, samples) = (
        scene.directory("etc"),
        [("one", 5000), ("two", 6000)].map(|(name, length)| Sample::new(name, length, 1000)),
    );
    let path = etc.join("tracker.toml");
    let text = "files = 'one.cascade'\nlisten = '127.0.0.1:0'\n";
    fs::write(&path, text).expect("a file");
    let [one, two] = samples.each_ref().map(|sample| {
        sample.write_cascade(&etc);
        sample.hash()
    });
    let server = scene
        .cascade("tracker")
        .args(["-c", "etc/tracker.toml"])
        .serve();
    let subscribes = |hash: &[u8; 32]| {
        let request = trackers::request(2, hash, "127.0.0.1:7".parse().expect("an address"));
        let (status, _) = trackers::ask(server.address(), &request).expect("an answer");
        status
    };
    assert_eq!((subscribes(&one), subscribes(&two)), (0, 1));
    let both = "files = ['one.cascade', 'two.cascade']\nlisten = '127.0.0.1:0'\n";
    read_again(&server, &path, both, "configuration reloaded: ");
    assert_eq!((subscribes(&one), subscribes(&two)), (0, 0));
    read_again(
        &server,
        &path,
        "files = 'two.cascade'\nbogus",
        "the old configuration stays",
    );
    let log = server.process().stderr();
    assert!(
        log.contains("cannot understand etc/tracker.toml:2: "),
        "{log}"
    );
    assert_eq!((subscribes(&one), subscribes(&two)), (0, 0));
    let late = format!("{both}ttl = 60\nmax-peers = 100\n");
    read_again(
        &server,
        &path,
        &late,
        "has another max-peers, ttl: that takes a restart",
    );
    let good = format!("{both}good-ip = '192.0.2.1'\n");
    read_again(&server, &path, &good, "configuration reloaded: ");
    server.stop();
    scene.assert_nothing_left();
}

/// A peer's answer for the first block: its status.
fn status_of(server: &Server, sample: &Sample) -> u8 {
    let request = clients::request(&sample.hash(), 0);
    clients::ask(server.address(), &request).map_or(255, |(status, _)| status)
}

#[test]
fn a_peer_reads_its_file_again_and_follows_the_list() {
    peer_follows(&[]);
}

#[test]
fn a_peer_that_left_its_files_behind_reads_its_file_again() {
    if !is_root() {
        skip("only root can change the root directory");
        return;
    }
    peer_follows(&["--chroot", "data", "--user", "65534:65534"]);
}

fn peer_follows(confined: &[&str]) {
    let scene = Scene::new();
    let samples = [("one", 5000), ("two", 6000), ("three", 7000)]
        .map(|(name, length)| Sample::new(name, length, 1000));
    let (data, etc) = (scene.directory("data"), scene.directory("etc"));
    for sample in &samples {
        sample.write_data(&data);
    }
    for sample in &samples[..2] {
        sample.write_cascade(&data);
    }
    if !confined.is_empty() {
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(scene.path(""), all).expect("our own directory");
    }
    let path = etc.join("peer.toml");
    let one = "files = '../data/one.cascade'\nlisten = '127.0.0.1:0'\ndirectory = '../data'\n";
    fs::write(&path, one).expect("a file");
    let peer = scene.cascade("peer").args(confined);
    let server = peer.args(["-c", "etc/peer.toml"]).serve();
    let serves = |which: [bool; 3]| {
        eventually("it serves what it should", || {
            let status = samples.each_ref().map(|sample| status_of(&server, sample));
            status == which.map(|serves| if serves { 0 } else { 1 })
        });
    };
    serves([true, false, false]);
    let two = one.replace("one", "two");
    read_again(&server, &path, &two, ": 1 new, 1 gone");
    serves([false, true, false]);
    read_again(
        &server,
        &path,
        "files = [",
        "the list of files stays as it was",
    );
    serves([false, true, false]);
    samples[2].write_cascade(&data);
    let all = format!("{two}watch-dir = true\nupload-slots = 3\n");
    read_again(&server, &path, &all, ": 2 new, 0 gone");
    serves([true, true, true]);
    let log = server.process().stderr();
    assert!(
        log.contains("has another upload-slots: that takes a restart"),
        "{log}"
    );
    server.stop();
    scene.assert_nothing_left();
}

#[test]
fn a_link_that_comes_later_is_fetched_and_served() {
    a_link_comes_later(&[]);
}

#[test]
fn a_link_that_comes_later_is_fetched_by_whom_a_peer_has_become() {
    if !is_root() {
        skip("only root can change the root directory");
        return;
    }
    a_link_comes_later(&["--chroot", "data", "--user", "65534:65534"]);
}

fn a_link_comes_later(confined: &[&str]) {
    let scene = Scene::new();
    let [one, two] =
        [("one", 5000), ("two", 6000)].map(|(name, length)| Sample::new(name, length, 1000));
    let (data, elsewhere) = (scene.directory("data"), scene.directory("elsewhere"));
    for (sample, directory) in [(&one, &data), (&two, &elsewhere)] {
        sample.write_data(directory);
        sample.write_cascade(directory);
    }
    if !confined.is_empty() {
        let all = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(scene.path(""), all(0o755)).expect("our own directory");
        fs::set_permissions(&data, all(0o777)).expect("our own directory");
    }
    let tracker = scene.tracker();
    let path = scene.path("peer.toml");
    let text = format!(
        "files = ['data/one.cascade']\nlisten = '127.0.0.1:0'\ndirectory = 'data'\ntracker = '{}'\n",
        tracker.address()
    );
    fs::write(&path, &text).expect("a file");
    let peer = scene.cascade("peer").args(confined);
    let server = peer.args(["-c", "peer.toml"]).serve();
    let link = format!("cascade://{}/{}/two", tracker.address(), two.hex());
    let both = text.replace("']\n", &format!("', '{link}']\n"));
    // Nobody has it yet.
    read_again(
        &server,
        &path,
        &both,
        "two.cascade is not there; it is fetched",
    );
    let other = scene.cascade("peer").tracker(tracker.address());
    let other = other
        .args(["-l", "127.0.0.1:0", "elsewhere/two.cascade"])
        .serve();
    for sample in [&one, &two] {
        eventually("it serves both", || status_of(&server, sample) == 0);
    }
    eventually("all of it is there", || {
        fs::read(data.join("two")).is_ok_and(|bytes| bytes == two.bytes)
    });
    // And no longer when it is gone.
    read_again(&server, &path, &text, ": 0 new, 1 gone");
    eventually("it is gone", || status_of(&server, &two) == 1);
    for server in [other, server, tracker] {
        server.stop();
    }
    scene.assert_nothing_left();
}

#[test]
fn a_link_that_comes_later_with_a_tracker_of_its_own_takes_a_restart_and_it_says_so() {
    let (scene, sample) = (Scene::new(), Sample::new("one", 5000, 1000));
    sample.write_data(&scene.path(""));
    sample.write_cascade(&scene.path(""));
    let path = scene.path("peer.toml");
    let one = "files = ['one.cascade']\nlisten = '127.0.0.1:0'\n";
    fs::write(&path, one).expect("a file");
    let server = scene.cascade("peer").args(["-c", "peer.toml"]).serve();
    let link = format!("cascade://127.0.0.1:9/{}/two", "ab".repeat(32));
    let both = one.replace("]", &format!(", '{link}']"));
    read_again(
        &server,
        &path,
        &both,
        "two.cascade is not there; to fetch it from tracker 127.0.0.1:9, which is new, takes a restart",
    );
    eventually("it goes on", || status_of(&server, &sample) == 0);
    server.stop();
    scene.assert_nothing_left();
}
