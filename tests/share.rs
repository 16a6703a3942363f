//! `cascade share`: one command here, the line that it prints elsewhere.

mod common;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::clients;
use common::eventually;
use common::peers;
use common::process::Process;
use common::sample::Sample;
use common::scene::Scene;
use common::standin::{Accepts, Conn};
use common::trackers;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

/// Tracker and peer on loopback, because that is asked for.
const HERE: [&str; 4] = ["--tracker-listen", "127.0.0.1:0", "-l", "127.0.0.1:0"];

fn sample() -> Sample {
    Sample::new("disk image.bin", 300_000, 65_536)
}

/// The lines so far.
fn lines(share: &Process) -> Vec<String> {
    share.stdout().lines().map(str::to_owned).collect()
}

/// Waits for the lines of so many files; answers the links.
#[track_caller]
fn links(share: &mut Process, files: usize) -> Vec<String> {
    eventually("the lines are printed", || {
        assert!(share.ended().is_none(), "{}", share.stderr());
        share.stdout().matches('\n').count() >= files
    });
    let link = |line: String| {
        let link = line.strip_prefix("cascade get ").map(str::to_owned);
        link.unwrap_or_else(|| panic!("not a line to type: {line}"))
    };
    lines(share).into_iter().map(link).collect()
}

/// The tracker of a link.
fn tracker_of(link: &str) -> SocketAddr {
    let rest = link.strip_prefix("cascade://").expect("a link");
    let (tracker, _) = rest.split_once('/').expect("a link");
    tracker.parse().expect("an address")
}

#[test]
fn the_printed_line_fetches_the_file_elsewhere() {
    let (scene, sample) = (Scene::new(), sample());
    let here = scene.directory("here");
    let data = sample.write_data(&here);
    let mut share = scene.cascade("share").args(HERE).arg(&data).start();
    let link = links(&mut share, 1).remove(0);
    assert!(link.ends_with("/disk%20image.bin"), "{link}");
    let made = fs::read(here.join("disk image.bin.cascade")).expect("it was made");
    assert!(link.contains(&hex::encode(<sha2::Sha256 as sha2::Digest>::digest(made))));

    scene.directory("there");
    let binaries = Path::new(env!("CARGO_BIN_EXE_cascade")).parent();
    let path = format!(
        "{}:{}",
        binaries.expect("it has one").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let typed = format!("cd there && {}", lines(&share)[0]);
    let shell = scene.program("sh").args(["-c", &typed]).env("PATH", path);
    shell.run().assert_code(0);
    sample.assert_complete(&scene.path("there/disk image.bin"));

    share.signal(Signal::SIGTERM);
    let done = share.finish().assert_code(0);
    assert_eq!(done.stdout.lines().count(), 1, "{done:?}");
    scene.assert_nothing_left();
}

#[test]
fn two_files_of_one_name_are_shared_and_that_is_said() {
    let scene = Scene::new();
    for (directory, length) in [("one", 5000), ("two", 6000)] {
        let directory = scene.directory(directory);
        Sample::new("data", length, 1000).write_data(&directory);
    }
    let share = scene.cascade("share").args(HERE);
    let mut share = share.args(["one/data", "two/data"]).start();
    links(&mut share, 2);
    share.signal(Signal::SIGTERM);
    let done = share.finish().assert_code(0);
    let said = "two/data: another file has the name data as well";
    assert_eq!(done.stderr.matches(said).count(), 1, "{done:?}");
}

#[test]
fn several_files_are_shared_at_once_and_what_cannot_be_is_said() {
    let scene = Scene::new();
    let samples = [Sample::new("a", 10_000, 4096), Sample::new("b", 0, 65_536)];
    samples.iter().for_each(|sample| {
        sample.write_data(&scene.path("."));
    });
    fs::write(scene.path(".hidden"), "x").expect("written");
    let bytes = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::write(scene.path(bytes), "y").expect("written");
    let share = scene
        .cascade("share")
        .args(HERE)
        .args(["a", "missing", "b", ".hidden", "./a"]);
    let mut share = share.arg(bytes).start();
    let links = links(&mut share, 2);
    let there = scene.directory("there");
    scene
        .cascade("get")
        .arg("-d")
        .arg(&there)
        .args(&links)
        .run()
        .assert_code(0);
    for sample in &samples {
        sample.assert_complete(&there.join(&sample.name));
    }
    share.signal(Signal::SIGINT);
    let done = share.finish().assert_code(1);
    assert_eq!(done.stdout.lines().count(), 2);
    for error in ["missing", "begins with a dot", "not UTF-8"] {
        assert!(done.stderr.contains(error), "{error}: {done:?}");
    }
    for name in ["missing", ".hidden"] {
        assert!(!scene.path(format!("{name}.cascade")).exists());
    }
}

#[test]
fn a_cascade_file_that_is_there_is_used_and_data_that_differ_are_left_alone() {
    let (scene, sample) = (Scene::new(), sample());
    let data = sample.write_data(&scene.path("."));
    sample.write_cascade(&scene.path("."));
    let mut share = scene.cascade("share").args(HERE).arg(&data).start();
    let link = links(&mut share, 1).remove(0);
    assert!(link.contains(&sample.hex()), "{link}");
    share.signal(Signal::SIGTERM);
    share.finish().assert_code(0);

    // Another peer has what the cascade file says: it must not come here.
    let seed = peers::start(&sample, peers::keeps_the_connection_open);
    let tracker = trackers::always(trackers::response(0, &trackers::records(&[seed.address()])));
    let mut changed = sample.bytes.clone();
    changed[100_000] ^= 1;
    fs::write(&data, &changed).expect("written");
    let share = scene
        .cascade("share")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0"]);
    let done = share.arg(&data).run().assert_code(1);
    assert!(done.stderr.contains("makes that anew"), "{done:?}");
    assert_eq!(done.stdout, "");
    assert!(fs::read(&data).expect("it is there") == changed);
    assert!(
        seed.asked().iter().all(|asked| asked.wants_map()),
        "no block"
    );
    fs::remove_file(&data).expect("it is there");
    scene
        .cascade("share")
        .args(HERE)
        .arg(&data)
        .run()
        .assert_code(1);
    assert!(!sample.part(&data).exists() && !data.exists());
}

#[test]
fn a_tracker_that_is_named_is_used() {
    let (scene, sample) = (Scene::new(), sample());
    let data = sample.write_data(&scene.path("."));
    let tracker = scene.tracker();
    let share = scene
        .cascade("share")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0"]);
    let mut share = share.arg(&data).start();
    let link = links(&mut share, 1).remove(0);
    // It listens on loopback only, so nothing else would do.
    assert_eq!(tracker_of(&link), tracker.address());
    assert!(
        share.stderr().contains("only this host"),
        "{}",
        share.stderr()
    );
    scene
        .cascade("get")
        .args(["-o", "copy"])
        .arg(&link)
        .run()
        .assert_code(0);
    sample.assert_complete(&scene.path("copy"));
    share.signal(Signal::SIGTERM);
    share.finish().assert_code(0);
}

/// Whether this machine has a way to others.
fn has_others() -> bool {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let connected = socket
        .connect("198.51.100.1:9")
        .and_then(|()| socket.local_addr());
    connected.is_ok_and(|address| !address.ip().is_loopback())
}

#[test]
fn the_link_and_the_tracker_name_an_address_that_others_can_reach() {
    let (scene, sample) = (Scene::new(), sample());
    let data = sample.write_data(&scene.path("."));
    let tracker = scene
        .cascade("tracker")
        .args(["--open", "-l", "0.0.0.0:0"])
        .serve();
    let named = SocketAddr::from((Ipv4Addr::LOCALHOST, tracker.address().port()));
    let own = scene.cascade("share").args(["--tracker-listen", "0"]);
    let other = scene.cascade("share").tracker(named);
    for share in [own, other] {
        let mut share = share.arg(&data).start();
        let link = links(&mut share, 1).remove(0);
        let tracker = tracker_of(&link);
        assert_ne!(tracker.ip().is_loopback(), has_others(), "{link}");
        let mut peers = Vec::new();
        eventually("the peer is known", || {
            peers = trackers::list(tracker, &hash_in(&link));
            !peers.is_empty()
        });
        assert_ne!(peers[0].ip().is_loopback(), has_others(), "{peers:?}");
        share.signal(Signal::SIGTERM);
        share.finish().assert_code(0);
    }
}

fn hash_in(link: &str) -> [u8; 32] {
    let hash = link.rsplit('/').nth(1).expect("a hash");
    let mut bytes = [0; 32];
    hex::decode_to_slice(hash, &mut bytes).expect("a hash");
    bytes
}

#[test]
fn the_address_that_is_advertised_is_in_the_link_and_in_the_record() {
    let (scene, sample) = (Scene::new(), sample());
    let data = sample.write_data(&scene.path("."));
    let share = scene
        .cascade("share")
        .args(HERE)
        .args(["--advertise", "203.0.113.9:700"]);
    let mut share = share.arg(&data).start();
    let link = links(&mut share, 1).remove(0);
    let tracker = tracker_of(&link);
    assert_eq!(tracker.ip(), Ipv4Addr::new(203, 0, 113, 9));
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, tracker.port()));
    let advertised = SocketAddrV4::new([203, 0, 113, 9].into(), 700);
    eventually("the peer is known", || {
        trackers::list(local, &hash_in(&link)) == [advertised]
    });
    share.signal(Signal::SIGTERM);
    share.finish().assert_code(0);
}

/// Connects from this address of the loopback network.
fn connect_from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
    let own = SockaddrIn::from(SocketAddrV4::new(from, 0));
    bind(fd.as_raw_fd(), &own).expect("an address");
    let SocketAddr::V4(to) = to else {
        panic!("not IPv4: {to}");
    };
    connect(fd.as_raw_fd(), &SockaddrIn::from(to)).expect("a connection");
    let stream = TcpStream::from(fd);
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("an option");
    stream
}

/// Downloads these blocks by hand, from this address.
fn download(from: Ipv4Addr, peer: SocketAddr, sample: &Sample, blocks: impl Iterator<Item = u64>) {
    let mut stream = connect_from(from, peer);
    for block in blocks {
        let request = clients::request(&sample.hash(), block);
        stream.write_all(&request).expect("sent");
        let (status, body) = clients::response(&mut stream).expect("an answer");
        assert_eq!(status, 0);
        assert!(Some(&*body) == sample.block(block));
    }
}

#[test]
fn it_ends_when_enough_addresses_have_a_copy_by_their_maps_or_by_what_was_sent() {
    let (scene, sample) = (Scene::new(), sample());
    let data = sample.write_data(&scene.path("."));
    sample.write_cascade(&scene.path("."));
    let share = scene.cascade("share").args(HERE).args(["--copies", "2"]);
    let mut share = share.arg(&data).start();
    let tracker = tracker_of(&links(&mut share, 1)[0]);
    let mut seed = Vec::new();
    eventually("the peer is known", || {
        seed = trackers::list(tracker, &sample.hash());
        !seed.is_empty()
    });
    let seed = SocketAddr::from(seed[0]);

    // One that has a part, then all.
    let whole = Arc::new(AtomicBool::new(false));
    let watched = {
        let whole = Arc::clone(&whole);
        peers::start_with(
            Accepts::Together,
            &sample,
            move |conn: &mut Conn, sample: &Sample| {
                while let Some(asked) = conn.request(sample)? {
                    assert!(asked.wants_map());
                    let map: &[u8] = if whole.load(Ordering::SeqCst) {
                        b""
                    } else {
                        b"\xf0"
                    };
                    conn.send(&peers::response(5, map))?;
                }
                Ok(())
            },
        )
    };
    let SocketAddr::V4(address) = watched.address() else {
        panic!("a stand-in has IPv4");
    };
    let subscribed = trackers::ask(tracker, &trackers::request(2, &sample.hash(), address));
    assert_eq!(subscribed.expect("an answer").0, 0);
    // Another that gets a part: twice the same block is one.
    let (second, third) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    download(second, seed, &sample, [0, 0, 1, 2, 3].into_iter());
    download(third, seed, &sample, [4, 1, 1, 1, 1].into_iter());
    eventually("it is watched", || watched.asked().len() >= 3);
    assert!(
        share.ended().is_none() && !share.stderr().contains("has all"),
        "{}",
        share.stderr()
    );

    whole.store(true, Ordering::SeqCst);
    eventually("the map was seen", || {
        share
            .stderr()
            .contains("127.0.0.1 has all of disk image.bin: 1 of 2")
    });
    assert!(share.ended().is_none());
    // The rest, on another connection.
    download(second, seed, &sample, [4].into_iter());
    let done = share.finish().assert_code(0);
    assert!(
        done.stderr
            .contains("127.0.0.2 has all of disk image.bin: 2 of 2"),
        "{done:?}"
    );
    watched.assert_well_treated();
    scene.assert_nothing_left();
}

#[test]
fn a_get_that_ends_at_once_is_a_copy_and_the_peer_that_shares_is_none() {
    let (scene, sample) = (Scene::new(), sample());
    let data = sample.write_data(&scene.path("."));
    let share = scene.cascade("share").args(HERE).args(["--copies", "1"]);
    let mut share = share.arg("-v").arg(&data).start();
    let link = links(&mut share, 1).remove(0);
    let tracker = tracker_of(&link);
    eventually("the peer is known", || {
        !trackers::list(tracker, &sample.hash()).is_empty()
    });
    // Two lists with it, and then some: were it to count itself, the first would do.
    let answers = || share.stderr().matches(": done").count();
    let before = answers();
    eventually("the tracker was asked again and again", || {
        answers() >= before + 4
    });
    assert!(share.ended().is_none(), "{}", share.stderr());
    scene
        .cascade("get")
        .args(["-o", "copy", &link])
        .run()
        .assert_code(0);
    share.finish().assert_code(0);
}

#[test]
fn no_process_survives_the_one_that_shares() {
    let (scene, sample) = (Scene::new(), sample());
    let data = sample.write_data(&scene.path("."));
    let mut share = scene
        .cascade("share")
        .args(HERE)
        .args(["--copies", "3"])
        .arg(&data)
        .start();
    links(&mut share, 1);
    share.signal(Signal::SIGKILL);
    share.finish().assert_signal(Signal::SIGKILL);
    scene.assert_nothing_left();
}

#[test]
fn a_role_that_dies_ends_it_with_an_error() {
    let (scene, sample) = (Scene::new(), sample());
    let data = sample.write_data(&scene.path("."));
    let mut share = scene.cascade("share").args(HERE).arg(&data).start();
    links(&mut share, 1);
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", share.pid()));
    let children = children.expect("/proc is mounted");
    // The tracker is the first that is started.
    let tracker: i32 = children
        .split_whitespace()
        .next()
        .expect("a child")
        .parse()
        .expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(tracker), Signal::SIGKILL).expect("killed");
    let done = share.finish().assert_code(1);
    assert!(
        done.error().contains("the tracker ended: signal 9"),
        "{done:?}"
    );
    scene.assert_nothing_left();
}
