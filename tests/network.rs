//! The whole network: a tracker, peers and downloads, over real files.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::eventually;
use common::process::{Process, Server};
use common::sample::Sample;
use common::scene::Scene;
use common::standin::{Accepts, StandIn};
use common::{peers, trackers};

/// A peer that has these files, in a directory of its own, and is known to the tracker.
#[track_caller]
fn seed(scene: &Scene, name: &str, tracker: &Server, samples: &[Sample]) -> Server {
    let directory = scene.directory(name);
    let mut peer = scene
        .cascade("peer")
        .tracker(tracker.address())
        .args(["-l", "127.0.0.1:0"]);
    for sample in samples {
        sample.write_data(&directory);
        peer = peer.arg(sample.write_cascade(&directory));
    }
    let seed = peer.serve();
    eventually("the seed is subscribed", || {
        samples.iter().all(|sample| {
            let peers = trackers::list(tracker.address(), &sample.hash());
            peers.iter().any(|peer| seed.address() == (*peer).into())
        })
    });
    seed
}

/// A download of these files into a directory of its own, with the cascade files elsewhere.
fn download(
    scene: &Scene,
    name: &str,
    tracker: &Server,
    cascades: &[PathBuf],
) -> (PathBuf, Process) {
    let directory = scene.directory(name);
    let process = scene
        .cascade("get")
        .tracker(tracker.address())
        .arg("-d")
        .arg(&directory)
        .args(["-l", "127.0.0.1:0"])
        .args(cascades)
        .start();
    (directory, process)
}

/// One tracker, two seeds, four downloaders.
#[track_caller]
fn four_download_from_two(samples: &[Sample]) {
    let scene = Scene::new();
    let tracker = scene.tracker();
    let seeds = ["seed1", "seed2"].map(|name| seed(&scene, name, &tracker, samples));
    let cascades: Vec<PathBuf> = samples
        .iter()
        .map(|sample| sample.write_cascade(&scene.path("")))
        .collect();
    let downloads = ["a", "b", "c", "d"].map(|name| download(&scene, name, &tracker, &cascades));
    for (directory, process) in downloads {
        // Hashing 100 MiB four times takes a while in a build without optimization, beside other tests.
        let done = process
            .finish_within(Duration::from_secs(180))
            .assert_code(0);
        let mut lines = done.results();
        lines.sort_unstable();
        let mut expected: Vec<String> = samples
            .iter()
            .map(|sample| sample.line(&directory.join(&sample.name)))
            .collect();
        expected.sort_unstable();
        assert_eq!(lines, expected, "{done:#?}");
        for sample in samples {
            sample.assert_complete(&directory.join(&sample.name));
        }
        assert_eq!(
            names(&directory).len(),
            samples.len(),
            "nothing else is left"
        );
    }
    for seed in seeds {
        seed.stop();
    }
    tracker.stop();
    scene.assert_nothing_left();
}

/// The names of the files in a directory.
fn names(directory: &Path) -> Vec<String> {
    std::fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().display().to_string())
        .collect()
}

#[test]
fn two_seeds_give_small_files_of_every_awkward_length_to_four_downloaders() {
    const BLOCK: usize = 4096;
    four_download_from_two(&[
        Sample::new("empty", 0, BLOCK),
        Sample::new("byte", 1, BLOCK),
        Sample::new("block", BLOCK, BLOCK),
        Sample::new("block-and-byte", BLOCK + 1, BLOCK),
    ]);
}

#[test]
fn two_seeds_give_100_mib_to_four_downloaders() {
    four_download_from_two(&[Sample::new("large", 100 << 20, 256 << 10)]);
}

#[test]
fn four_downloaders_serve_each_other() {
    let scene = Scene::new();
    let tracker = scene.tracker();
    let sample = Sample::new("data", 60 * 2048 - 7, 2048);
    let cascade = sample.write_cascade(&scene.path(""));
    // A seed that gives each block twice, ever. Four copies need each four times.
    let given = Mutex::new(vec![0; sample.blocks()]);
    let stingy = peers::start_with(Accepts::Together, &sample, move |conn, sample| {
        while let Some(asked) = conn.request(sample)? {
            let times = {
                let mut given = given.lock().expect("no thread panicked");
                given[asked.block() as usize] += 1;
                given[asked.block() as usize]
            };
            if times <= 2 {
                conn.send(&peers::block(sample, &asked))?;
            } else {
                conn.send(&peers::not_present())?;
            }
        }
        Ok(())
    });
    // Peers, which stay when they are complete: who needs a block can still find it.
    let downloaders = ["a", "b", "c", "d"].map(|name| {
        let directory = scene.directory(name);
        let peer = scene
            .cascade("peer")
            .tracker(tracker.address())
            .peer(stingy.address())
            .args(["-l", "127.0.0.1:0", "-d"])
            .arg(&directory)
            .arg(&cascade)
            .serve();
        (directory.join("data"), peer)
    });
    for (path, _) in &downloaders {
        eventually("a downloader is complete", || path.exists());
        sample.assert_complete(path);
    }
    for (_, peer) in downloaders {
        peer.stop();
    }
}

#[test]
fn a_downloader_serves_from_the_first_block_on() {
    let scene = Scene::new();
    let tracker = scene.tracker();
    let sample = Sample::new("data", 40 * 1024, 1024);
    let cascade = sample.write_cascade(&scene.path(""));
    let seed = peers::start_with(Accepts::Together, &sample, peers::stalls_after(10));
    let get = scene
        .cascade("get")
        .tracker(tracker.address())
        .peer(seed.address())
        .args(["-l", "127.0.0.1:0"])
        .arg(&cascade)
        .start();
    let mut found = None;
    eventually("the downloader is subscribed and serves ten blocks", || {
        found = trackers::list(tracker.address(), &sample.hash()).pop();
        found.is_some_and(|peer| served(peer.into(), &sample) == 10)
    });
    drop(get);
}

/// How many blocks a peer serves; each must be right.
fn served(peer: SocketAddr, sample: &Sample) -> usize {
    let mut count = 0;
    for block in sample.all() {
        let request = common::clients::request(&sample.hash(), block);
        match common::clients::ask(peer, &request) {
            Ok((0, body)) => {
                assert!(Some(&body[..]) == sample.block(block), "block {block}");
                count += 1;
            }
            Ok((2, _)) => {}
            other => panic!("block {block}: {other:?}"),
        }
    }
    count
}

/// Stands between a downloader and a real seed, and lets blocks through slowly: so there is a middle of the
/// download. Counts the bytes.
struct Bottleneck {
    stand_in: StandIn,
    passed: Arc<AtomicUsize>,
}

impl Bottleneck {
    fn before(seed: SocketAddr) -> Self {
        let passed = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&passed);
        let stand_in = StandIn::start(Accepts::Together, move |conn| {
            // With the seed gone, the connection is closed: as close to a refusal as a go-between can come.
            let up = TcpStream::connect(seed)?;
            let client = conn.stream().try_clone()?;
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let _ = std::io::copy(&mut &client, &mut &up);
                    let _ = up.shutdown(Shutdown::Write);
                });
                let mut buffer = [0; 16 << 10];
                let mut down = || -> std::io::Result<()> {
                    loop {
                        let n = (&up).read(&mut buffer)?;
                        if n == 0 {
                            return Ok(());
                        }
                        counter.fetch_add(n, Ordering::SeqCst);
                        conn.pause(Duration::from_millis(4));
                        (&client).write_all(&buffer[..n])?;
                    }
                };
                let result = down();
                // Ends the other direction, too.
                let _ = client.shutdown(Shutdown::Both);
                let _ = up.shutdown(Shutdown::Both);
                result
            })
        });
        Self { stand_in, passed }
    }

    fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

#[test]
fn a_seed_killed_in_mid_download_is_no_loss_while_another_remains() {
    let scene = Scene::new();
    let tracker = scene.tracker();
    let sample = Sample::new("data", 8 << 20, 64 << 10);
    let cascade = sample.write_cascade(&scene.path(""));
    let samples = std::slice::from_ref(&sample);
    let victim = seed(&scene, "victim", &tracker, samples);
    let survivor = seed(&scene, "survivor", &tracker, samples);
    let to_victim = Bottleneck::before(victim.address());
    let to_survivor = Bottleneck::before(survivor.address());
    let mut get = scene
        .cascade("get")
        .peer(to_victim.stand_in.address())
        .peer(to_survivor.stand_in.address())
        .arg(&cascade)
        .start();
    eventually("the victim is in use", || to_victim.passed() > 1 << 20);
    assert!(get.ended().is_none(), "the download is under way");
    victim.kill();
    get.finish().assert_code(0);
    sample.assert_complete(&scene.path("data"));
    assert!(to_survivor.passed() > 1 << 20, "the survivor was used");
    survivor.stop();
}

#[test]
fn a_subscriber_is_visible_to_the_very_next_client_a_thousand_times() {
    let scene = Scene::new();
    let tracker = scene.tracker();
    for round in 0..1000u32 {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&round.to_be_bytes());
        let peer = SocketAddrV4::new([127, 0, 0, 1].into(), 4000 + round as u16);
        let (status, others) = trackers::ask(tracker.address(), &trackers::request(2, &hash, peer))
            .expect("the tracker answers");
        assert_eq!((status, others.len()), (0, 0), "round {round}");
        let seen = trackers::list(tracker.address(), &hash);
        assert_eq!(seen, [peer], "round {round}");
    }
    tracker.stop();
}

#[test]
fn the_environment_names_the_tracker_where_the_command_line_does_not() {
    let scene = Scene::new();
    let tracker = scene.tracker();
    let sample = Sample::new("data", 5000, 1024);
    let seed = seed(&scene, "seed", &tracker, std::slice::from_ref(&sample));
    let cascade = sample.write_cascade(&scene.path(""));
    let address = tracker.address().to_string();
    let listed = scene
        .cascade("list")
        .env("CASCADE_TRACKER", &address)
        .arg(&cascade)
        .run()
        .assert_code(0);
    assert!(
        listed.stdout.starts_with(&seed.address().to_string()),
        "{listed:#?}"
    );
    scene
        .cascade("get")
        .env("CASCADE_TRACKER", &address)
        .arg(&cascade)
        .run()
        .assert_code(0);
    sample.assert_complete(&scene.path("data"));
}

#[test]
fn a_closed_standard_output_is_no_error() {
    for options in [&[][..], &["--json"]] {
        let (scene, sample) = (Scene::new(), Sample::new("data", 5000, 1024));
        let cascade = sample.write_cascade(&scene.path(""));
        let seed = peers::start(&sample, peers::keeps_the_connection_open);
        let get = scene.cascade("get").args(options).peer(seed.address());
        let ended = get
            .arg(&cascade)
            .start_with_closed_stdout()
            .finish()
            .assert_code(0);
        ended.assert_no_error();
        sample.assert_complete(&scene.path("data"));
    }
}

#[test]
fn a_peer_listens_on_ipv4_and_ipv6_unless_told_otherwise_and_serves_on_both() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 5000, 1024));
    let cascade = sample.write_cascade(&scene.path(""));
    sample.write_data(&scene.path(""));
    let seed = scene.cascade("peer").arg(&cascade).serve();
    let mut ports = Vec::new();
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped in part: this machine has no IPv6");
    } else {
        eventually("both listeners are printed", || seed.addresses().len() == 2);
    }
    for address in seed.addresses() {
        let host = if address.is_ipv6() {
            "[::1]"
        } else {
            "127.0.0.1"
        };
        let copy = scene.path(format!("copy{}", ports.len()));
        scene
            .cascade("get")
            .args(["-p", &format!("{host}:{}", address.port()), "-o"])
            .args([&copy, &cascade])
            .run()
            .assert_code(0);
        sample.assert_complete(&copy);
        ports.push(address.port());
    }
    seed.stop();
}
