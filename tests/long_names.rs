//! Names that fill all the 255 bytes that a link and a file system have for one: the files beside the data file have
//! shorter ones, and are found again.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use common::eventually;
use common::peers::{self, response, start_with};
use common::sample::Sample;
use common::scene::Scene;
use common::standin::{Accepts, Conn};

const ENDING: &str = ".cascade";

/// Names of 247 bytes, which leave room for an ending, and of more, which do not.
fn names() -> Vec<String> {
    let names = [(247, "n"), (248, "n"), (255, "n"), (250, "é"), (255, "€")];
    let fill = |(length, with): (usize, &str)| {
        let name = with.repeat(length / with.len());
        let left = length - name.len();
        name + &"x".repeat(left)
    };
    names.into_iter().map(fill).collect()
}

fn sample(name: &str) -> Sample {
    Sample::of(name, common::sample::random(30_000 + name.len()), 4096)
}

/// An address at which nobody is.
fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

/// What lies in a directory.
fn there(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

/// The cascade file of a directory.
fn cascade_in(directory: &Path) -> PathBuf {
    let names = there(directory);
    let name = names.iter().find(|name| name.ends_with(ENDING));
    directory.join(name.unwrap_or_else(|| panic!("{names:?}")))
}

fn link(scene: &Scene, sample: &Sample) -> (common::process::Server, String) {
    let tracker = scene.tracker();
    let name = sample.name.bytes().map(|byte| format!("%{byte:02x}"));
    let name: String = name.collect();
    let link = format!("cascade://{}/{}/{name}", tracker.address(), sample.hex());
    (tracker, link)
}

#[test]
fn what_create_has_made_verify_get_and_peer_find_without_a_name() {
    for name in names() {
        let (scene, sample) = (Scene::new(), sample(&name));
        let directory = scene.directory("d");
        let data = sample.write_data(&directory);
        let created = scene.cascade("create").arg(&data).run().assert_code(0);
        created.assert_no_error();
        let cascade = cascade_in(&directory);
        assert_eq!(
            cascade == directory.join(format!("{name}{ENDING}")),
            name.len() <= 247
        );
        let verify = || scene.cascade("verify").arg(&cascade);
        verify().run().assert_code(0).assert_no_error();
        let elsewhere = scene.directory("cascades");
        let moved = elsewhere.join(cascade.file_name().expect("a name"));
        fs::copy(&cascade, &moved).expect("copied");
        let elsewhere = scene
            .cascade("verify")
            .arg("-d")
            .arg(&directory)
            .arg(&moved);
        elsewhere.run().assert_code(0).assert_no_error();

        // It is complete, and nobody has to be asked.
        let get = scene.cascade("get").peer(nowhere()).arg(&cascade).run();
        assert_eq!(get.assert_code(0).results().len(), 1);
        let peer = scene.cascade("peer").args(["-l", "127.0.0.1:0"]);
        let peer = peer.arg("--watch-dir").arg("-d").arg(&directory);
        let peer = peer.peer(nowhere()).serve();
        let other = scene.cascade("get").peer(peer.address());
        let got = scene.path("got");
        let other = other.arg("-o").arg(&got).arg(&moved).run();
        other.assert_code(0).assert_no_error();
        assert!(fs::read(&got).expect("there") == sample.bytes);
    }
}

#[test]
fn the_link_that_share_prints_is_all_that_get_needs() {
    for name in names() {
        let (scene, sample) = (Scene::new(), sample(&name));
        let data = sample.write_data(&scene.directory("shared"));
        let mut share = scene
            .cascade("share")
            .args(["--tracker-listen", "127.0.0.1:0", "-l", "127.0.0.1:0"])
            .arg(data)
            .start();
        let mut link = String::new();
        eventually("a link", || {
            let stdout = share.stdout();
            assert_eq!(share.ended(), None, "{}", share.stderr());
            let line = stdout.lines().find(|line| line.contains("cascade://"));
            link = line.map_or_else(String::new, |line| {
                line.split_whitespace().last().unwrap_or_default().into()
            });
            stdout.ends_with('\n') && !link.is_empty()
        });

        let into = scene.directory("got");
        let get = scene.cascade("get").arg("-d").arg(&into).arg(link).run();
        get.assert_code(0).assert_no_error();
        sample.assert_complete(&into.join(&name));
        assert_eq!(there(&into).len(), 2);
        cascade_in(&into);
    }
}

/// Has the cascade file, and these blocks.
fn serves(
    has: fn(u64) -> bool,
) -> impl Fn(&mut Conn, &Sample) -> io::Result<()> + Send + Sync + 'static {
    move |conn, sample| {
        while let Some(asked) = conn.request(sample)? {
            let present = (0..sample.blocks()).filter(|block| has(*block as u64));
            let mut map = vec![0u8; sample.blocks().div_ceil(8)];
            present.for_each(|block| map[block / 8] |= 0x80 >> (block % 8));
            let answer = match asked.bytes[15] {
                2 if asked.is_extended() => response(6, &sample.cascade),
                1 if asked.is_extended() => response(5, &map),
                _ if has(asked.block()) => peers::block(sample, &asked),
                _ => peers::not_present(),
            };
            conn.send(&answer)?;
        }
        Ok(())
    }
}

#[test]
fn a_download_of_such_a_name_goes_on_where_it_was_interrupted() {
    for name in names() {
        let (scene, sample) = (Scene::new(), sample(&name));
        let (tracker, link) = link(&scene, &sample);
        let into = scene.directory("got");
        let get = || scene.cascade("get").arg("-d").arg(&into).arg(&link);
        let some = start_with(Accepts::Together, &sample, serves(|block| block % 2 == 0));
        let limit = ["--timeout", "1"];
        get().peer(some.address()).args(limit).run().assert_code(3);
        let left = there(&into);
        let part = left.iter().find(|name| name.ends_with(".part"));
        let part = into.join(part.unwrap_or_else(|| panic!("{left:?}")));
        let held = sample.held(&part);
        assert!(!held.is_empty() && held.len() < sample.blocks(), "{held:?}");

        let all = start_with(Accepts::Together, &sample, serves(|_| true));
        get().peer(all.address()).run().assert_code(0);
        sample.assert_complete(&into.join(&name));
        assert!(!part.exists());
        // What was there was not asked for again.
        let blocks = all.asked().into_iter().filter(|asked| !asked.is_extended());
        let asked: BTreeSet<u64> = blocks.map(|asked| asked.block()).collect();
        assert!(asked.is_disjoint(&held), "{asked:?} {held:?}");
        drop(tracker);
    }
}
