//! The rate limits and upload slots, with real processes over loopback.

mod common;

use std::time::{Duration, Instant};

use common::process::Server;
use common::sample::Sample;
use common::scene::Scene;

const LIMIT: usize = 2 << 20;
const SECONDS: u64 = 3;
/// What takes as long as that at the limit.
const LENGTH: usize = LIMIT * SECONDS as usize;

/// A peer with these options that has the file.
#[track_caller]
fn seed(scene: &Scene, sample: &Sample, options: &[&str]) -> Server {
    let directory = scene.directory("seed");
    sample.write_data(&directory);
    scene
        .cascade("peer")
        .args(["-l", "127.0.0.1:0"])
        .args(options)
        .arg(sample.write_cascade(&directory))
        .serve()
}

/// Downloads the file so many times at once; says how long the last one took.
#[track_caller]
fn download(scene: &Scene, sample: &Sample, seed: &Server, count: usize, options: &[&str]) -> f64 {
    let cascade = sample.write_cascade(&scene.path(""));
    let begun = Instant::now();
    let downloads: Vec<_> = (0..count)
        .map(|number| {
            let directory = scene.directory(&number.to_string());
            let get = scene.cascade("get").peer(seed.address()).args(options);
            get.arg("-d").arg(&directory).arg(&cascade).start()
        })
        .collect();
    for (number, process) in downloads.into_iter().enumerate() {
        process.finish().assert_code(0);
        sample.assert_complete(&scene.path(number.to_string()).join(&sample.name));
    }
    begun.elapsed().as_secs_f64()
}

#[track_caller]
fn assert_about(took: f64, expected: Duration) {
    let ratio = took / expected.as_secs_f64();
    assert!((0.85..=1.15).contains(&ratio), "{took} s, not {expected:?}");
}

#[test]
fn an_upload_limit_holds_over_all_connections_of_all_who_download() {
    let scene = Scene::new();
    let sample = Sample::new("data", LENGTH / 2, 16 << 10);
    let seed = seed(&scene, &sample, &["--upload-limit", "2MiB"]);
    let took = download(&scene, &sample, &seed, 2, &[]);
    assert_about(took, Duration::from_secs(SECONDS));
}

#[test]
fn a_download_limit_holds_over_all_workers() {
    let scene = Scene::new();
    let sample = Sample::new("data", LENGTH, 64 << 10);
    let seed = seed(&scene, &sample, &[]);
    let took = download(&scene, &sample, &seed, 1, &["--download-limit", "2MiB"]);
    assert_about(took, Duration::from_secs(SECONDS));
}

#[test]
fn more_who_download_than_upload_slots_are_all_served() {
    let scene = Scene::new();
    let sample = Sample::new("data", 8 << 20, 64 << 10);
    let seed = seed(&scene, &sample, &["--upload-slots", "1"]);
    let took = download(&scene, &sample, &seed, 4, &[]);
    assert!(took < 20.0, "{took} s");
}
