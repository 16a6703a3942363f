//! `cascade get`, `peer` and `list` with the trackers that are out there: they refuse, hang, lie, break off, or
//! speak less than ours.

mod common;

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use common::process::Finished;
use common::sample::Sample;
use common::scene::Scene;
use common::standin::StandIn;
use common::{eventually, peers, trackers};

fn sample() -> Sample {
    Sample::new("data", 40_000, 1024)
}

/// A scene, a file that is wanted there, and a peer that has it.
struct Wanted {
    scene: Scene,
    sample: Sample,
    cascade: std::path::PathBuf,
    peer: StandIn,
}

impl Wanted {
    fn new() -> Self {
        let (scene, sample) = (Scene::new(), sample());
        Self {
            cascade: sample.write_cascade(&scene.path("")),
            peer: peers::start(&sample, peers::keeps_the_connection_open),
            scene,
            sample,
        }
    }

    /// Downloads with the help of these trackers.
    #[track_caller]
    fn get_from(&self, trackers: &[SocketAddr]) -> Finished {
        self.get_with(&[], trackers)
    }

    /// As [`Self::get_from`], so slowly that the file is there in part for a while.
    #[track_caller]
    fn get_slowly_from(&self, tracker: SocketAddr) -> Finished {
        self.get_with(&["--download-limit", "15KiB"], &[tracker])
    }

    #[track_caller]
    fn get_with(&self, options: &[&str], trackers: &[SocketAddr]) -> Finished {
        let get = trackers
            .iter()
            .fold(self.scene.cascade("get"), |get, tracker| {
                get.tracker(*tracker)
            });
        let done = get
            .args(options)
            .arg(&self.cascade)
            .run()
            .assert_code(0)
            .assert_within(Duration::from_secs(20));
        self.sample.assert_complete(&self.scene.path("data"));
        done
    }

    /// A tracker that names the peer, and whatever else is in `others`.
    fn tracker_with(&self, others: &[SocketAddr]) -> StandIn {
        let peers = [others, &[self.peer.address()]].concat();
        trackers::always(trackers::response(0, &trackers::records(&peers)))
    }

    /// A tracker of no use does not hinder a download for which another names the peer; alone it ends with the
    /// timeout.
    #[track_caller]
    fn is_no_hindrance(&self, tracker: SocketAddr) {
        let good = self.tracker_with(&[]);
        self.times_out_with(tracker);
        self.get_from(&[tracker, good.address()]);
    }

    /// With this tracker alone nothing ever comes.
    #[track_caller]
    fn times_out_with(&self, tracker: SocketAddr) {
        let done = self
            .scene
            .cascade("get")
            .args(["--timeout", "2"])
            .tracker(tracker)
            .arg(&self.cascade)
            .run()
            .assert_code(3)
            .assert_within(Duration::from_secs(15));
        assert!(done.took >= Duration::from_millis(1500), "{done:#?}");
        assert!(!done.stderr.is_empty(), "it says what it waits for");
        assert!(done.results().is_empty(), "{done:#?}");
        assert!(!self.scene.path("data").exists());
        assert!(!self.sample.part(&self.scene.path("data")).exists());
    }

    /// `list` says in one line that it cannot use this tracker.
    #[track_caller]
    fn list_fails_with(&self, tracker: SocketAddr) -> Finished {
        let done = self
            .scene
            .cascade("list")
            .tracker(tracker)
            .arg(&self.cascade)
            .run()
            .assert_code(1);
        done.error();
        assert!(done.stdout.is_empty(), "{done:#?}");
        done
    }
}

/// As one that bans private addresses does with a peer behind a router.
#[test]
fn a_tracker_that_does_not_register_a_peer_is_asked_for_the_others() {
    let wanted = Wanted::new();
    let records = trackers::records(&[wanted.peer.address()]);
    let tracker = trackers::start(move |conn, asked| {
        conn.send(&match asked.command() {
            1 => trackers::response(0, &records),
            _ => trackers::response(1, b"private addresses are refused"),
        })
    });
    let done = wanted.get_slowly_from(tracker.address());
    let refused = "does not tell others of this peer: ";
    assert!(done.stderr.contains(refused), "{done:#?}");
    assert!(
        done.stderr.contains("private addresses are refused"),
        "{done:#?}"
    );
}

#[test]
fn a_tracker_that_answers_byte_by_byte_is_understood() {
    let wanted = Wanted::new();
    let records = trackers::records(&[wanted.peer.address()]);
    let answer = trackers::response(0, &records);
    let tracker = trackers::start(move |conn, _| {
        for byte in &answer {
            conn.send(&[*byte])?;
            conn.pause(Duration::from_millis(2));
        }
        Ok(())
    });
    wanted.get_from(&[tracker.address()]);
    tracker.assert_well_treated();
}

#[test]
fn a_tracker_that_keeps_the_connection_open_after_its_answer_is_understood() {
    let wanted = Wanted::new();
    let records = trackers::records(&[wanted.peer.address()]);
    let answer = trackers::response(0, &records);
    let tracker = trackers::start(move |conn, _| {
        conn.send(&answer)?;
        conn.hang()
    });
    wanted.get_from(&[tracker.address()]);
    let listed = wanted
        .scene
        .cascade("list")
        .tracker(tracker.address())
        .arg(&wanted.cascade)
        .run()
        .assert_code(0)
        .assert_within(Duration::from_secs(4));
    let peer = wanted.peer.address().to_string();
    assert!(listed.stdout.starts_with(&peer), "{listed:#?}");
}

#[test]
fn the_time_and_the_good_flag_of_a_record_are_listed() {
    let wanted = Wanted::new();
    // 0x60000000 is 2021-01-14 08:25:36 UTC.
    let body = b"\xc0\0\x02\x07\x9c\xbb\x60\0\0\0\x01\0\xc6\x33\x64\x09\x23\x28\x60\0\0\0\0\0";
    let tracker = trackers::always(trackers::response(0, body));
    let listed = wanted
        .scene
        .cascade("list")
        .tracker(tracker.address())
        .arg(wanted.sample.hex())
        .run()
        .assert_code(0);
    let mut lines = listed.results();
    lines.sort_unstable();
    assert_eq!(lines.len(), 2, "one line per peer: {listed:#?}");
    assert!(lines[0].starts_with("192.0.2.7:40123") && lines[0].ends_with("good"));
    assert!(lines[1].starts_with("198.51.100.9:9000") && !lines[1].contains("good"));
    assert!(lines.iter().all(|line| line.contains("2021-01-14")));
}

#[test]
fn an_empty_list_is_success_for_list_and_a_reason_to_wait_for_get() {
    let wanted = Wanted::new();
    let tracker = trackers::always(trackers::response(0, b""));
    let listed = wanted
        .scene
        .cascade("list")
        .tracker(tracker.address())
        .arg(&wanted.cascade)
        .run()
        .assert_code(0);
    assert_eq!(listed.stdout, "");
    wanted.times_out_with(tracker.address());
    assert!(
        (1..30).contains(&tracker.asked().len()),
        "asked {} times in two seconds",
        tracker.asked().len()
    );
}

#[test]
fn peers_that_come_later_are_found_and_a_lonely_download_waits_for_them() {
    let wanted = Wanted::new();
    let begin = std::time::Instant::now();
    let peer = wanted.peer.address();
    let tracker = trackers::start(move |conn, _| {
        let late = begin.elapsed() > Duration::from_secs(2);
        let peers = if late { vec![peer] } else { Vec::new() };
        conn.send(&trackers::response(0, &trackers::records(&peers)))
    });
    wanted.get_from(&[tracker.address()]);
}

#[test]
fn a_tracker_that_cannot_be_reached_is_tried_again_until_the_timeout() {
    let wanted = Wanted::new();
    let nobody = trackers::nobody_there();
    wanted.list_fails_with(nobody);
    wanted.is_no_hindrance(nobody);
}

#[test]
fn a_tracker_that_hangs_is_no_hindrance() {
    let wanted = Wanted::new();
    let tracker = trackers::start(|conn, _| conn.hang());
    wanted.is_no_hindrance(tracker.address());
}

#[test]
fn a_tracker_that_stops_in_mid_answer_is_no_hindrance() {
    let wanted = Wanted::new();
    let half = trackers::announced(0, 24, &trackers::records(&[wanted.peer.address()]));
    let tracker = trackers::start(move |conn, _| {
        conn.send(&half)?;
        conn.hang()
    });
    wanted.is_no_hindrance(tracker.address());
}

#[test]
fn list_gives_up_on_a_tracker_that_hangs() {
    let wanted = Wanted::new();
    let tracker = trackers::start(|conn, _| conn.hang());
    let done = wanted.list_fails_with(tracker.address());
    assert!(done.took < Duration::from_secs(30), "{done:#?}");
}

#[test]
fn a_tracker_that_closes_at_once_is_no_hindrance() {
    let wanted = Wanted::new();
    let tracker = StandIn::start(common::standin::Accepts::Together, |_| Ok(()));
    wanted.list_fails_with(tracker.address());
    wanted.is_no_hindrance(tracker.address());
}

#[test]
fn a_tracker_that_announces_2_to_the_32_bytes_is_not_believed() {
    let wanted = Wanted::new();
    let tracker = trackers::start(|conn, _| {
        conn.send(&trackers::announced(0, u32::MAX, &[1; 12]))?;
        conn.hang()
    });
    wanted.list_fails_with(tracker.address());
    wanted.is_no_hindrance(tracker.address());
}

#[test]
fn a_tracker_that_sends_a_part_of_a_record_is_not_believed() {
    let wanted = Wanted::new();
    let tracker = trackers::always(trackers::response(0, &[127, 0, 0, 1, 9, 9, 0]));
    wanted.list_fails_with(tracker.address());
    wanted.is_no_hindrance(tracker.address());
}

#[test]
fn records_of_dead_peers_and_of_no_peers_are_no_hindrance() {
    let wanted = Wanted::new();
    let impossible = ["0.0.0.0:0", "0.0.0.0:9", "127.0.0.1:0", "255.255.255.255:9"]
        .map(|address| address.parse().expect("an address"));
    let dead = std::array::from_fn::<_, 5, _>(|_| trackers::nobody_there());
    let tracker = wanted.tracker_with(&[&impossible[..], &dead[..]].concat());
    wanted.get_from(&[tracker.address()]);
}

/// A tracker says at most 20 peers at a time. One that knows many more, most of whom are gone, is asked until somebody is
/// there.
#[test]
fn who_is_alone_soon_asks_for_more_peers_where_a_list_is_full() {
    const EARLIER: usize = 9;
    const RECORDS: usize = 20;
    let wanted = Wanted::new();
    let dead = Vec::from_iter((0..RECORDS).map(|_| trackers::nobody_there()));
    let alive = [&dead[1..], &[wanted.peer.address()]].concat();
    let lists = std::sync::atomic::AtomicUsize::new(0);
    let tracker = trackers::start(move |conn, _| {
        let list = lists.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let peers = if list < EARLIER { &dead } else { &alive };
        conn.send(&trackers::response(0, &trackers::records(peers)))
    });
    wanted.get_from(&[tracker.address()]);
}

#[test]
fn a_tracker_that_refuses_has_its_message_shown_without_control_characters() {
    let wanted = Wanted::new();
    let mut message = b"not here\x1b[2J\x1b]0;title\x07\r\ncascade: all is well\n".to_vec();
    message.extend_from_slice(&[b'x'; 4000]);
    let tracker = trackers::always(trackers::response(1, &message));
    let listed = wanted.list_fails_with(tracker.address());
    let got = wanted
        .scene
        .cascade("get")
        .args(["--timeout", "2"])
        .tracker(tracker.address())
        .arg(&wanted.cascade)
        .run();
    // Whether it waits for a change of mind or not, it does not succeed, and nobody looks for data.
    assert!(matches!(got.status.code(), Some(1 | 3)), "{got:#?}");
    for done in [listed, got] {
        assert!(done.stderr.contains("not here"), "{done:#?}");
        for line in done.stderr.lines() {
            assert!(!line.contains(char::is_control), "{line:?}");
            assert!(line.chars().count() < 500, "{line:?}");
            assert!(!line.starts_with("cascade: all is well"), "{line:?}");
        }
    }
    assert!(!wanted.scene.path("data").exists());
    assert!(!wanted.sample.part(&wanted.scene.path("data")).exists());
}

#[test]
fn a_tracker_that_knows_only_list_and_subscribe_is_used() {
    let wanted = Wanted::new();
    let records = trackers::records(&[wanted.peer.address()]);
    let tracker = trackers::start(move |conn, asked| match asked.command() {
        1 | 2 => conn.send(&trackers::response(0, &records)),
        _ => conn.send(&trackers::response(1, b"unknown command\n")),
    });
    let done = wanted.get_from(&[tracker.address()]);
    done.assert_no_error();
    let before = tracker.asked().len();
    let daemon = wanted
        .scene
        .cascade("peer")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0"])
        .arg(&wanted.cascade)
        .serve();
    eventually("the peer subscribes", || tracker.asked().len() > before);
    daemon.stop().assert_no_error();
    tracker.assert_well_treated();
}

fn has_subscribed(tracker: &StandIn) -> bool {
    tracker.asked().iter().any(|asked| asked.command() == 2)
}

/// What a client sends, byte for byte.
#[track_caller]
fn assert_asked(tracker: &StandIn, command: u8, hash: &[u8], address: [u8; 6]) {
    let golden = [
        &b"CASC\0\0\0\x01\0\0\0"[..],
        &[command],
        b"\0\0\0\x26",
        hash,
        &address,
    ]
    .concat();
    let asked = tracker.asked();
    assert!(
        asked.iter().any(|asked| asked.bytes == golden),
        "{golden:02x?} is not in {asked:02x?}"
    );
}

#[test]
fn who_serves_nothing_lists_with_no_address() {
    let wanted = Wanted::new();
    let tracker = wanted.tracker_with(&[]);
    wanted
        .scene
        .cascade("list")
        .tracker(tracker.address())
        .arg(&wanted.cascade)
        .run()
        .assert_code(0);
    assert_eq!(tracker.asked().len(), 1);
    assert_asked(&tracker, 1, &wanted.sample.hash(), [0; 6]);
    wanted
        .scene
        .cascade("get")
        .arg("--no-serve")
        .tracker(tracker.address())
        .arg(&wanted.cascade)
        .run()
        .assert_code(0);
    let asked = tracker.asked();
    assert!(asked.len() > 1);
    for asked in asked {
        assert_eq!(asked.command(), 1, "it subscribes to nothing");
        assert_eq!(asked.peer(), SocketAddrV4::new([0, 0, 0, 0].into(), 0));
    }
}

#[test]
fn a_peer_subscribes_with_the_local_address_of_its_connection_and_its_port() {
    let wanted = Wanted::new();
    let tracker = wanted.tracker_with(&[]);
    let daemon = wanted
        .scene
        .cascade("peer")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0"])
        .arg(&wanted.cascade)
        .serve();
    eventually("the peer subscribes", || has_subscribed(&tracker));
    let [high, low] = daemon.address().port().to_be_bytes();
    assert_asked(
        &tracker,
        2,
        &wanted.sample.hash(),
        [127, 0, 0, 1, high, low],
    );
    daemon.stop();
}

#[test]
fn a_peer_advertises_the_address_that_it_is_told() {
    let wanted = Wanted::new();
    let tracker = wanted.tracker_with(&[]);
    let daemon = wanted
        .scene
        .cascade("peer")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0", "--advertise", "192.0.2.7:4660"])
        .arg(&wanted.cascade)
        .serve();
    eventually("the peer subscribes", || has_subscribed(&tracker));
    assert_asked(
        &tracker,
        2,
        &wanted.sample.hash(),
        [192, 0, 2, 7, 0x12, 0x34],
    );
    daemon.stop();
}

#[test]
fn a_download_subscribes_unless_it_names_no_tracker() {
    let wanted = Wanted::new();
    let tracker = wanted.tracker_with(&[]);
    wanted.get_slowly_from(tracker.address());
    assert!(has_subscribed(&tracker));
    let asked = tracker.asked();
    assert_eq!(asked[0].command(), 1, "there was nothing to serve then");
    assert_eq!(asked.last().map(|asked| asked.command()), Some(3));
    tracker.assert_well_treated();
}

/// It would stay on the lists for half an hour at a tracker that does not know how to remove it.
#[test]
fn download_that_is_over_before_it_served_anybody_registers_nothing() {
    let wanted = Wanted::new();
    let tracker = wanted.tracker_with(&[]);
    wanted.get_from(&[tracker.address()]);
    assert!(tracker.asked().iter().all(|asked| asked.command() == 1));
    // Nor does one that found nothing.
    let wanted = Wanted::new();
    let tracker = trackers::always(trackers::response(0, &[]));
    wanted.times_out_with(tracker.address());
    assert!(tracker.asked().iter().all(|asked| asked.command() == 1));
}
