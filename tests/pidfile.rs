//! `--pidfile`: the file names the daemon, only one can have it, and it is gone when the daemon is.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use common::process::Server;
use common::scene::{Invocation, Scene};
use common::subject::{Kind, Setup};
use common::{is_root, skip};
use nix::sys::signal::Signal;

/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// A tracker that keeps its number in `pid`.
fn tracker(scene: &Scene) -> Invocation<'_> {
    let tracker = scene
        .cascade("tracker")
        .args(["--open", "--pidfile", "pid"]);
    tracker.args(["-l", "127.0.0.1:0"])
}

#[track_caller]
fn assert_names(scene: &Scene, server: &Server) {
    let pid = server.process().pid();
    let text = fs::read_to_string(scene.path("pid")).expect("the pidfile");
    assert_eq!(text, format!("{pid}\n"));
}

#[test]
fn each_daemon_has_its_number_in_it_and_removes_it() {
    for kind in [Kind::Echo, Kind::Tracker, Kind::Peer] {
        for model in ["process", "thread"] {
            let setup = Setup::new(kind).model(model).options(&["--pidfile", "pid"]);
            let subject = setup.serve();
            assert_names(&subject.scene, &subject.server);
            let metadata = fs::metadata(subject.scene.path("pid")).expect("the pidfile");
            assert_eq!(metadata.permissions().mode() & 0o777, 0o644);
            subject.server.stop();
            let left = fs::read_dir(subject.scene.path("")).expect("our directory");
            let left = left.filter(|entry| {
                let name = entry.as_ref().expect("an entry").file_name();
                name.to_string_lossy().contains("pid")
            });
            assert_eq!(left.count(), 0, "{kind:?} {model}");
        }
    }
}

#[test]
fn a_second_daemon_ends_with_an_error_that_names_the_first() {
    let scene = Scene::new();
    let first = tracker(&scene).serve();
    let second = tracker(&scene).run().assert_code(1);
    let pid = first.process().pid();
    assert_eq!(
        second.error(),
        format!("cascade: cannot use pid as a pidfile: process {pid} has it, and still runs")
    );
    assert_names(&scene, &first);
    first.stop();
    assert!(!scene.path("pid").exists());
}

#[test]
fn what_a_killed_daemon_leaves_behind_hinders_nobody() {
    let scene = Scene::new();
    let first = tracker(&scene).serve();
    first.kill().assert_signal(Signal::SIGKILL);
    assert!(scene.path("pid").exists());
    let second = tracker(&scene).serve();
    assert_names(&scene, &second);
    second.stop();
    assert!(!scene.path("pid").exists());
}

#[test]
fn of_many_that_begin_at_once_one_gets_it() {
    let scene = Scene::new();
    fs::write(scene.path("pid"), "4711\n").expect("a file that somebody left");
    let mut started: Vec<_> = (0..8).map(|_| tracker(&scene).start()).collect();
    common::eventually("all but one have ended", || {
        started.retain_mut(|process| process.ended().is_none());
        started.len() == 1
    });
    let winner = Server::new(started.remove(0));
    assert_names(&scene, &winner);
    winner.stop();
}

#[test]
fn where_it_cannot_begin_it_leaves_none() {
    let scene = Scene::new();
    let server = scene.tracker();
    let address = server.address().to_string();
    let tracker = scene
        .cascade("tracker")
        .args(["--open", "--pidfile", "pid"]);
    tracker.args(["-l", &address]).run().assert_code(1);
    assert!(!scene.path("pid").exists());
}

#[test]
fn one_that_was_replaced_meanwhile_is_anothers() {
    let scene = Scene::new();
    let server = tracker(&scene).serve();
    fs::remove_file(scene.path("pid")).expect("our own directory");
    fs::write(scene.path("pid"), "another\n").expect("our own directory");
    server.stop();
    assert_eq!(
        fs::read_to_string(scene.path("pid")).ok().as_deref(),
        Some("another\n")
    );
}

#[test]
fn what_is_no_regular_file_is_left_alone() {
    let scene = Scene::new();
    fs::write(scene.path("precious"), "data").expect("a file");
    std::os::unix::fs::symlink("precious", scene.path("pid")).expect("a link");
    let ended = tracker(&scene).run().assert_code(1);
    assert!(
        ended.error().starts_with("cascade: cannot write pid: "),
        "{ended:#?}"
    );
    assert_eq!(
        fs::read_to_string(scene.path("precious")).ok().as_deref(),
        Some("data")
    );
}

#[test]
fn it_is_removed_though_the_daemon_has_become_another_user_who_sees_another_root() {
    if !is_root() {
        return skip("only root can change its user");
    }
    let scene = Scene::new();
    fs::set_permissions(scene.path(""), fs::Permissions::from_mode(0o755)).expect("ours");
    let jail = scene.directory("jail");
    chown(&jail, Some(NOBODY), Some(NOBODY)).expect("root may");
    for sandbox in ["require", "off"] {
        let server = tracker(&scene)
            .args(["--user", "65534:65534", "--chroot", "jail"])
            .args(["--sandbox", sandbox])
            .serve();
        assert_names(&scene, &server);
        let owner = fs::metadata(scene.path("pid")).expect("the pidfile").uid();
        assert_eq!(owner, 0);
        server.stop();
        assert!(!scene.path("pid").exists(), "{sandbox}");
    }
}
