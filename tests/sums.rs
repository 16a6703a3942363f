//! What `get` prints is what sha256sum(1) reads.

mod common;

use std::fs;
use std::process::Command;

use common::peers;
use common::sample::Sample;
use common::scene::Scene;

#[test]
fn sha256sum_accepts_what_get_prints_whatever_the_name() {
    let (scene, sample) = (Scene::new(), Sample::new("data", 100_000, 4096));
    let seed = peers::start(&sample, peers::keeps_the_connection_open);
    let cascade = sample.write_cascade(&scene.path(""));
    for name in ["plain", "with blank", "back\\slash", "new\nline", "./-"] {
        let get = scene.cascade("get").peer(seed.address());
        let done = get.args(["-o", name]).arg(&cascade).run().assert_code(0);
        fs::write(scene.path("sums"), &done.stdout).expect("written");
        let check = Command::new("sha256sum")
            .args(["--check", "--strict", "sums"])
            .current_dir(scene.path(""))
            .output()
            .expect("sha256sum runs");
        assert!(check.status.success(), "{name:?}: {check:?} {done:?}");
    }
}
