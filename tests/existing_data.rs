//! What becomes of data that exist already: whose they are, who may write them, and what is never removed.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::download::{BLOCK, BLOCKS, Download, GIVEN};
use common::process::Finished;
use common::{clients, eventually, is_root, skip};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("it is there").ino()
}

/// `data.part`, as older versions called it, and as other programs do.
fn old_part(download: &Download) -> PathBuf {
    download.scene.path("data.part")
}

/// Fails with an error that names the data file, and has touched nothing and asked nobody.
#[track_caller]
fn refuses(download: &Download) -> Finished {
    let before = fs::read(download.data()).ok();
    let honest = download.honest();
    let refused = download.get(&honest).run().assert_code(1);
    assert!(refused.error().contains("data"), "{refused:#?}");
    assert_eq!(fs::read(download.data()).ok(), before, "it is as it was");
    assert!(!download.part().exists());
    assert_eq!(honest.connections(), 0, "nobody was asked");
    refused
}

#[test]
fn incomplete_file_is_not_touched_and_error_says_what_agrees_and_what_to_do() {
    let download = Download::new();
    fs::write(download.data(), &download.sample.bytes[..30 * BLOCK]).expect("a data file");
    let refused = refuses(&download);
    for what in ["30 of 64 blocks agree", "-f", "--in-place"] {
        assert!(refused.error().contains(what), "{what}: {refused:#?}");
    }
}

#[test]
fn foreign_file_is_not_touched() {
    let download = Download::new();
    fs::write(download.data(), vec![b'o'; 10 * BLOCK]).expect("another file");
    refuses(&download);
}

#[test]
fn force_replaces_copies_what_agrees_and_leaves_other_hard_links() {
    let download = Download::new().with(&["-f"]);
    let mut old = download.sample.bytes[..30 * BLOCK].to_vec();
    old[7 * BLOCK] ^= 1;
    fs::write(download.data(), &old).expect("a data file");
    fs::set_permissions(download.data(), fs::Permissions::from_mode(0o640)).expect("our own");
    let link = download.scene.path("link");
    fs::hard_link(download.data(), &link).expect("a hard link");
    let held = download.sample.held(&link);
    assert_eq!(held.len(), 29);
    download.completes_keeping(&held);
    assert_eq!(fs::read(link).expect("it is there"), old, "the other link");
    let mode = fs::metadata(download.data()).expect("it is there").mode();
    assert_eq!(mode & 0o777, 0o640, "the mode is kept");
}

#[test]
fn force_replaces_foreign_longer_and_empty_files() {
    for old in [vec![b'o'; 10 * BLOCK], vec![b'o'; 100 * BLOCK], Vec::new()] {
        let download = Download::new().with(&["-f"]);
        fs::write(download.data(), &old).expect("another file");
        download.completes_keeping(&BTreeSet::new());
    }
}

#[test]
fn interrupted_replacement_leaves_the_old_file_and_goes_on() {
    let download = Download::new().with(&["-f"]);
    let old = &download.sample.bytes[..30 * BLOCK];
    fs::write(download.data(), old).expect("a data file");
    let stalling = download.stalling();
    let get = download.get(&stalling).start();
    eventually("what was copied and what came is in the part", || {
        download.sample.held(&download.part()).len() == 30 + GIVEN
    });
    get.signal(Signal::SIGINT);
    get.finish().assert_signal(Signal::SIGINT);
    assert_eq!(fs::read(download.data()).expect("it is there"), old);
    let held = download.sample.held(&download.part());
    assert_eq!(held.len(), 30 + GIVEN, "the part is kept");
    download.completes_keeping(&held);
}

#[test]
fn file_that_somebody_changes_meanwhile_is_not_replaced() {
    let download = Download::new().with(&["-f"]);
    fs::write(download.data(), "old").expect("a data file");
    let stalling = download.stalling();
    let get = download.get(&stalling).start();
    eventually("something came", || {
        download.sample.held(&download.part()).len() == GIVEN
    });
    fs::write(download.data(), "somebody is at work").expect("written");
    get.signal(Signal::SIGTERM);
    get.finish().assert_signal(Signal::SIGTERM);
    // The same within one run.
    let honest = download.honest();
    let mut limited = download
        .get(&honest)
        .args(["--download-limit", "100KiB"])
        .start();
    eventually("more came", || {
        download.sample.held(&download.part()).len() > GIVEN + 2
    });
    assert!(limited.ended().is_none(), "it is not done yet");
    fs::write(download.data(), "somebody is still at work").expect("written");
    let ended = limited.finish().assert_code(1);
    assert!(ended.error().contains("changed meanwhile"), "{ended:#?}");
    let there = fs::read(download.data()).expect("it is there");
    assert_eq!(there, b"somebody is still at work");
    assert_eq!(download.sample.held(&download.part()).len(), BLOCKS);
}

#[test]
fn in_place_completes_the_file_where_it_lies() {
    let download = Download::new().with(&["--in-place"]);
    fs::write(download.data(), &download.sample.bytes[..30 * BLOCK]).expect("a data file");
    let before = inode(&download.data());
    let (peer, get) = download.get_in_mid_course(&download.data());
    assert!(!download.part().exists(), "it has its file");
    drop((peer, get));
    let held = download.sample.held(&download.data());
    assert_eq!(held.len(), 30 + GIVEN);
    download.completes_keeping(&held);
    assert_eq!(inode(&download.data()), before, "in place");
}

#[test]
fn in_place_needs_force_for_hard_links_and_for_what_has_nothing_in_common() {
    let zeros = vec![0; BLOCKS * BLOCK - 5];
    let some = Download::new().sample.bytes[..BLOCK].to_vec();
    for (there, links) in [(vec![b'o'; 9], 1), (zeros, 1), (some, 2)] {
        let download = Download::new().with(&["--in-place"]);
        // A block of zeros that is right says nothing.
        let mut sample = download.sample.bytes.clone();
        sample[5 * BLOCK..6 * BLOCK].fill(0);
        let download =
            Download::of(common::sample::Sample::of("data", sample, BLOCK)).with(&["--in-place"]);
        let there = match links {
            1 => there,
            _ => download.sample.bytes[..BLOCK].to_vec(),
        };
        fs::write(download.data(), there).expect("a file");
        if links == 2 {
            fs::hard_link(download.data(), download.scene.path("link")).expect("a link");
        }
        let refused = refuses(&download);
        assert!(refused.error().contains("-f"), "{refused:#?}");
        let before = inode(&download.data());
        let honest = download.honest();
        download.get(&honest).arg("-f").run().assert_code(0);
        download.sample.assert_complete(&download.data());
        assert_eq!(inode(&download.data()), before, "in place");
    }
}

#[test]
fn in_place_cuts_a_longer_file_only_once_all_blocks_are_right() {
    let download = Download::new().with(&["--in-place"]);
    let mut longer = download.sample.bytes.clone();
    longer[..40 * BLOCK].fill(0);
    longer.extend_from_slice(&[b't'; 3 * BLOCK]);
    fs::write(download.data(), &longer).expect("a longer file");
    let (peer, get) = download.get_in_mid_course(&download.data());
    let now = fs::read(download.data()).expect("it is there");
    assert_eq!(now.len(), longer.len(), "not cut yet");
    assert!(now.ends_with(&[b't'; 3 * BLOCK]), "the tail is as it was");
    get.signal(Signal::SIGTERM);
    get.finish().assert_signal(Signal::SIGTERM);
    let size = fs::metadata(download.data()).expect("it is there").len();
    assert_eq!(size, longer.len() as u64, "not cut by an interruption");
    drop(peer);
    let held = download.sample.held(&download.data());
    download.completes_keeping(&held);
}

#[test]
fn file_that_is_right_and_too_long_is_cut_in_place_only() {
    let download = Download::new();
    let mut longer = download.sample.bytes.clone();
    longer.push(0);
    fs::write(download.data(), &longer).expect("a longer file");
    let refused = refuses(&download);
    assert!(refused.error().contains("1 byte too long"), "{refused:#?}");
    let download = download.with(&["--in-place"]);
    download.completes_keeping(&download.sample.all());
}

#[test]
fn second_process_on_a_file_that_is_completed_in_place_says_so_and_ends() {
    let download = Download::new().with(&["--in-place"]);
    fs::write(download.data(), &download.sample.bytes[..BLOCK]).expect("a data file");
    let (_peer, mut first) = download.get_in_mid_course(&download.data());
    let second = download.get(&download.honest()).run().assert_code(1);
    assert!(second.error().contains("another process"), "{second:#?}");
    assert!(first.ended().is_none(), "the first one goes on");
}

#[test]
fn what_is_no_file_of_ours_is_said_and_not_followed() {
    for options in [&[][..], &["-f"], &["--in-place"], &["-f", "--in-place"]] {
        let (link, dangling, directory, pipe) = (
            Download::new().with(options),
            Download::new().with(options),
            Download::new().with(options),
            Download::new().with(options),
        );
        let target = link.scene.path("target");
        let some = &link.sample.bytes[..3 * BLOCK];
        fs::write(&target, some).expect("a file");
        symlink(&target, link.data()).expect("a link");
        let said = refuses(&link);
        assert!(said.error().contains("symbolic link"), "{said:#?}");
        assert!(link.data().is_symlink(), "the link stays");
        assert_eq!(fs::read(target).expect("it is there"), some);
        symlink("nowhere", dangling.data()).expect("a link");
        refuses(&dangling);
        assert!(dangling.data().is_symlink() && !dangling.data().exists());
        fs::create_dir(directory.data()).expect("a directory");
        refuses(&directory);
        mkfifo(&pipe.data(), Mode::S_IRWXU).expect("a pipe");
        let honest = pipe.honest();
        let refused = pipe.get(&honest).run().assert_code(1);
        assert!(refused.error().contains("no regular file"), "{refused:#?}");
    }
}

#[test]
fn file_of_another_owner_is_not_written() {
    if !is_root() {
        return skip("only root can give files away");
    }
    for options in [&["-f"][..], &["--in-place"], &["-f", "--in-place"]] {
        let download = Download::new().with(options);
        fs::write(download.data(), &download.sample.bytes[..BLOCK]).expect("a file");
        chown(download.data(), Some(12345), None).expect("root may");
        let refused = refuses(&download);
        assert!(refused.error().contains("12345"), "{refused:#?}");
    }
    let download = Download::new();
    fs::write(download.part(), &download.sample.bytes[..BLOCK]).expect("a part");
    chown(download.part(), Some(12345), None).expect("root may");
    let honest = download.honest();
    let refused = download.get(&honest).run().assert_code(1);
    assert!(refused.error().contains("12345"), "{refused:#?}");
}

#[test]
fn old_part_is_taken_over_where_all_that_it_has_is_right() {
    let download = Download::new();
    // As an older version left it: reserved, and written here and there.
    let mut old = vec![0; download.sample.bytes.len()];
    for at in [3 * BLOCK, 9 * BLOCK, 10 * BLOCK] {
        old[at..at + BLOCK].copy_from_slice(&download.sample.bytes[at..at + BLOCK]);
    }
    fs::write(old_part(&download), &old).expect("a part");
    download.completes_keeping(&BTreeSet::from([3, 9, 10]));
    assert!(!old_part(&download).exists(), "it has become the file");
}

#[test]
fn old_part_with_anything_else_in_it_is_left_alone_unless_adopted() {
    let right = Download::new().sample.bytes.len();
    for foreign in [true, false] {
        let download = Download::new();
        let mut old = vec![b'o'; right];
        if !foreign {
            old[..2 * BLOCK].copy_from_slice(&download.sample.bytes[..2 * BLOCK]);
        }
        fs::write(old_part(&download), &old).expect("somebody's file");
        let honest = download.honest();
        let done = download.get(&honest).run().assert_code(0);
        assert_eq!(fs::read(old_part(&download)).expect("it is there"), old);
        assert_eq!(done.stderr.contains("--adopt"), !foreign, "{done:#?}");
        download.sample.assert_complete(&download.data());
        fs::remove_file(download.data()).expect("ours");
        let download = download.with(&["--adopt"]);
        download.completes_keeping(&(0..if foreign { 0 } else { 2 }).collect());
        assert!(!old_part(&download).exists(), "it was taken over");
    }
}

#[test]
fn parts_of_other_downloads_are_never_touched() {
    let download = Download::new();
    let other = download.scene.path("data.0badcafe.part");
    fs::write(&other, "another version").expect("a part");
    let honest = download.honest();
    download.get(&honest).run().assert_code(0);
    assert_eq!(fs::read(&other).expect("it is there"), b"another version");
}

#[test]
fn part_of_an_earlier_run_is_kept_whatever_is_in_it() {
    let nobody = ["-p", "127.0.0.1:1", "--timeout", "1"];
    let download = Download::new();
    for there in [&b""[..], b"nothing right", &vec![0; BLOCKS * BLOCK]] {
        fs::write(download.part(), there).expect("a part");
        let get = download.scene.cascade("get").args(nobody);
        get.arg(&download.cascade).run().assert_code(3);
        let kept = fs::metadata(download.part()).expect("it is there").len();
        assert!(kept >= there.len() as u64, "it may be reserved");
    }
    // One that this run made, and to which nothing was written, goes.
    fs::remove_file(download.part()).expect("it is there");
    let get = download.scene.cascade("get").args(nobody);
    get.arg(&download.cascade).run().assert_code(3);
    assert!(!download.part().exists());
}

#[cfg(feature = "faults")]
#[test]
fn part_is_kept_where_its_verification_is_interrupted_or_dies() {
    for (fault, ends) in [("verifier=hang", true), ("verifier=segv", false)] {
        let download = Download::new();
        let there = &download.sample.bytes[..30 * BLOCK];
        fs::write(download.part(), there).expect("a part");
        let honest = download.honest();
        let get = download.get(&honest).env("CASCADE_FAULT", fault);
        if ends {
            let get = get.start();
            eventually("it verifies", || {
                common::procfs::children(get.pid()).len() == 1
            });
            get.signal(Signal::SIGTERM);
            get.finish().assert_signal(Signal::SIGTERM);
        } else {
            get.run().assert_code(1);
        }
        assert_eq!(fs::read(download.part()).expect("it is there"), there);
    }
}

/// As on a network mount whose server is gone.
#[cfg(feature = "faults")]
#[test]
fn supervisor_that_hangs_in_a_file_system_ends_within_the_grace() {
    use std::os::unix::process::ExitStatusExt;
    for (command, signal) in [("get", Signal::SIGINT), ("peer", Signal::SIGTERM)] {
        let download = Download::new();
        let honest = download.honest();
        let hangs = download.scene.cascade(command).peer(honest.address());
        let hangs = hangs.args(["--grace", "1"]).arg(&download.cascade);
        let hangs = hangs.env("CASCADE_FAULT", "opening=hang").start();
        let is_caught = |signal: Signal| {
            let caught = common::procfs::caught(hangs.pid());
            caught.is_some_and(|caught| caught & 1 << (signal as u64 - 1) != 0)
        };
        eventually("it hangs", || is_caught(Signal::SIGINT));
        hangs.signal(signal);
        let ended = hangs.finish_within(Duration::from_secs(10));
        let by = ended.status.signal();
        assert_eq!(by, Some(Signal::SIGALRM as i32), "{ended:#?}");
        assert_eq!(honest.connections(), 0);
    }
}

#[test]
fn peer_serves_what_is_right_of_an_incomplete_file_and_leaves_it_alone() {
    let download = Download::new();
    let some = &download.sample.bytes[..30 * BLOCK];
    fs::write(download.data(), some).expect("a data file");
    let honest = download.honest();
    let peer = || {
        let peer = download.scene.cascade("peer").peer(honest.address());
        peer.args(["-l", "127.0.0.1:0"]).arg(&download.cascade)
    };
    let server = peer().serve();
    server.says("30 of 64 blocks agree");
    let ask = |block| {
        let request = clients::request(&download.sample.hash(), block);
        clients::ask(server.address(), &request)
            .expect("a response")
            .0
    };
    assert_eq!((ask(0), ask(30)), (0, 2));
    assert_eq!(honest.connections(), 0, "it downloads nothing");
    server.stop();
    assert_eq!(fs::read(download.data()).expect("it is there"), some);

    let server = peer().arg("--in-place").serve();
    eventually("it is mended", || {
        download.sample.held(&download.data()).len() == BLOCKS
    });
    server.stop().assert_within(Duration::from_secs(20));
}

#[test]
fn peer_serves_data_behind_a_symbolic_link() {
    let download = Download::new();
    let data = download.sample.write_data(&download.scene.directory("far"));
    symlink(data, download.data()).expect("a link");
    let peer = download.scene.cascade("peer").args(["-l", "127.0.0.1:0"]);
    let server = peer.arg(&download.cascade).serve();
    let request = clients::request(&download.sample.hash(), 7);
    let (status, _) = clients::ask(server.address(), &request).expect("a response");
    assert_eq!(status, 0);
    server.stop();
}
