//! The log of a daemon: one line per event, for people, for programs and for the journal, as much of it as was asked for.

mod common;

#[cfg(feature = "faults")]
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;

use common::eventually;
use common::process::{Finished, Server};
use common::scene::{Invocation, Scene};
use common::subject::{Kind, Setup, Subject};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Asks once, so that the log has something to say.
fn ask(subject: &Subject) {
    let mut stream = subject.connect();
    stream.write_all(&subject.request(1)).expect("a request");
    subject.check_reply(&mut stream, 1);
}

/// A connection that was served, a status block, and the end.
fn events_of(kind: Kind, options: &[&str]) -> Finished {
    let subject = Setup::new(kind).options(options).serve();
    ask(&subject);
    subject.server.process().signal(Signal::SIGUSR1);
    eventually("there is a status block", || {
        subject.server.process().stderr().contains("children: ")
    });
    eventually("the connection has ended", || {
        let log = subject.server.process().stderr();
        !options.contains(&"-v") || log.contains("end pid ")
    });
    subject.server.stop()
}

#[test]
fn each_line_for_programs_is_an_object_with_the_fields_of_the_manual() {
    for kind in [Kind::Echo, Kind::Tracker, Kind::Peer] {
        let ended = events_of(kind, &["-v", "--log-format", "json"]);
        let mut about = 0;
        for line in ended.stderr.lines() {
            let fields: Value = serde_json::from_str(line).expect("an object");
            let text = |name: &str| fields[name].as_str().unwrap_or_else(|| panic!("{line}"));
            humantime::parse_rfc3339(text("time")).expect("a time");
            assert!(text("time").ends_with('Z'), "{line}");
            assert!(["info", "debug"].contains(&text("level")), "{line}");
            assert!(fields["pid"].as_u64().is_some_and(|pid| pid > 1), "{line}");
            let (message, remote) = (text("message"), fields.get("remote"));
            if message.starts_with("accept ") || message.starts_with("end pid ") {
                let remote = remote.and_then(Value::as_str).expect("the client");
                assert!(message.contains(remote), "{line}");
                about += 1;
            }
        }
        assert!(about >= 2, "{ended:#?}");
        assert!(ended.stderr.contains(r#""message":"status: children: "#));
    }
}

#[test]
fn an_error_that_ends_it_is_such_a_line_too() {
    let scene = Scene::new();
    let server = scene.tracker();
    let second = scene
        .cascade("tracker")
        .args(["--open", "--log-format", "json", "-l"])
        .arg(server.address().to_string())
        .run();
    assert_eq!(second.status.code(), Some(1));
    let [line] = second.stderr.lines().collect::<Vec<_>>()[..] else {
        panic!("{second:#?}");
    };
    let fields: Value = serde_json::from_str(line).expect("an object");
    assert_eq!(fields["level"], "error");
    let message = fields["message"].as_str().expect("a message");
    assert!(message.starts_with("cannot listen on "), "{line}");
}

#[cfg(feature = "faults")]
#[test]
fn a_crash_is_one_line_of_its_own() {
    let panicking = Setup::new(Kind::Echo).env("CASCADE_FAULT", "connection=panic");
    let subject = panicking.options(&["--log-format", "json"]).serve();
    let mut end = Vec::new();
    let _ = subject.connect().read_to_end(&mut end);
    eventually("the crash is logged", || {
        subject.server.process().stderr().contains("crashed")
    });
    let log = subject.server.process().stderr();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    let level = |text: &str| {
        let has = |line: &&Value| line["message"].as_str().is_some_and(|it| it.contains(text));
        let line = lines.iter().find(has);
        line.unwrap_or_else(|| panic!("no '{text}'"))["level"].clone()
    };
    assert_eq!(level("panicked at "), "error");
    assert_eq!(level("crashed"), "warn");
}

#[test]
fn a_level_leaves_out_what_is_less_important_and_verbose_and_quiet_are_short_for_one() {
    // What is said, and not said, with these options.
    let expected: [(Kind, &[&str], bool, bool); 8] = [
        (Kind::Echo, &[], true, false),
        (Kind::Echo, &["-v"], true, true),
        (Kind::Tracker, &["--log-level", "debug"], true, true),
        (Kind::Tracker, &["--log-level", "info"], true, false),
        (Kind::Tracker, &["--log-level", "warn"], false, false),
        (Kind::Tracker, &["--log-level", "error"], false, false),
        (Kind::Tracker, &["--log-level", "error", "-v"], true, true),
        (Kind::Peer, &["--log-level", "info", "-q"], false, false),
    ];
    for (kind, options, info, debug) in expected {
        let ended = events_of(kind, options);
        assert_eq!(ended.stderr.contains("sandbox: "), info, "{ended:#?}");
        assert_eq!(ended.stderr.contains("accept pid "), debug, "{ended:#?}");
        // A signal asks for it, whatever else is logged.
        assert!(ended.stderr.contains("status: "), "{ended:#?}");
    }
}

/// A tracker whose standard error is said to be the journal; `of` says of which descriptor that is true.
fn with_journal<'a>(scene: &'a Scene, of: &str, options: &str) -> Invocation<'a> {
    let script = format!(
        "JOURNAL_STREAM=$(stat -L -c %d:%i {of}) exec \"$0\" tracker --open -v -l 127.0.0.1:0 {options}"
    );
    let shell = scene.program("sh").args(["-c", &script]);
    shell.arg(env!("CARGO_BIN_EXE_cascade"))
}

fn asked_for_nothing(server: Server) -> String {
    drop(TcpStream::connect(server.address()).expect("a connection"));
    eventually("the connection has ended", || {
        server.process().stderr().contains("end pid ")
    });
    server.stop().stderr
}

#[test]
fn the_journal_gets_priorities_and_nothing_that_it_knows_already() {
    let scene = Scene::new();
    let log = asked_for_nothing(with_journal(&scene, "/proc/self/fd/2", "").serve());
    let begins = |line: &str, text: &str| line.starts_with(text);
    for line in log.lines() {
        assert!(begins(line, "<6>") || begins(line, "<7>"), "{log}");
        assert!(!line.contains("cascade["), "{log}");
    }
    assert!(
        log.lines().any(|line| begins(line, "<6>sandbox: ")),
        "{log}"
    );
    assert!(
        log.lines().any(|line| begins(line, "<7>accept pid ")),
        "{log}"
    );
    // What a child says is the child's.
    let log = with_journal(&scene, "/proc/self/fd/2", "--log-format json");
    let log = asked_for_nothing(log.serve());
    assert!(
        log.lines().all(|line| line.contains(">{\"time\":\"")),
        "{log}"
    );
}

#[test]
fn what_was_diverted_from_the_journal_is_a_log_like_any_other() {
    let scene = Scene::new();
    let log = asked_for_nothing(with_journal(&scene, "/dev/null", "").serve());
    assert!(
        log.lines().all(|line| line.starts_with("cascade[")),
        "{log}"
    );
}
