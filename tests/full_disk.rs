//! A disk on which not everything fits: what was taken is given back, and what fits is done.

mod common;

use std::process::Command;

use common::scene::Scene;
use common::{is_root, skip};

/// Runs a script with a disk of 16 MiB with ext4 at `m`, in mounts of its own: `$1` is the program.
fn on_a_small_disk(scene: &Scene, script: &str) -> String {
    let set_up = "set -e; truncate -s 16M image; mkfs.ext4 -q image; mkdir m; mount -o loop image m
        free() { df --output=avail -B1M m | tail -n 1 | tr -d ' '; }
        for file in 30:big 5:f 3:g; do head -c ${file%:*}M /dev/urandom >${file#*:}; done
        \"$1\" create big f g >/dev/null
        \"$1\" peer -l 127.0.0.1:0 big.cascade f.cascade g.cascade >listening 2>/dev/null & peer=$!
        until grep -q listening listening; do sleep 0.05; done
        address=127.0.0.1:$(sed 's/.*://' listening); set +e\n";
    let script = format!("{set_up}{script}\nkill $peer; wait $peer; umount m");
    let unshare = scene
        .program("unshare")
        .args(["-m", "bash", "-c", &script, "bash"]);
    let ended = unshare
        .arg(env!("CARGO_BIN_EXE_cascade"))
        .run()
        .assert_code(0);
    ended.stdout + &ended.stderr
}

fn can_mount() -> bool {
    is_root() && Command::new("mkfs.ext4").arg("-V").output().is_ok()
}

#[test]
fn file_that_does_not_fit_says_what_it_needs_and_leaves_the_disk_as_it_was() {
    if !can_mount() {
        return skip("needs root, and mkfs.ext4");
    }
    let scene = Scene::new();
    let said = on_a_small_disk(
        &scene,
        "head -c 2M big >m/big.$(sha256sum big.cascade | head -c 8).part; sync -f m; before=$(free)
        \"$1\" get -p $address -o m/big big.cascade; echo status $?; sync -f m
        [ $(free) -ge $((before - 1)) ] && echo given back; ls m",
    );
    assert!(said.contains("status 1"), "{said}");
    assert!(said.contains("28 MiB more are needed"), "{said}");
    assert!(said.contains("are free there"), "{said}");
    assert!(
        said.contains("given back") && said.contains(".part"),
        "{said}"
    );
}

#[test]
fn of_several_files_those_that_fit_are_done() {
    if !can_mount() {
        return skip("needs root, and mkfs.ext4");
    }
    let scene = Scene::new();
    let said = on_a_small_disk(
        &scene,
        "\"$1\" get -q -p $address -d m big.cascade f.cascade g.cascade; echo status $?
        cmp f m/f && cmp g m/g && echo those that fit; ls m",
    );
    assert!(
        said.contains("status 1") && said.contains("those that fit"),
        "{said}"
    );
    assert!(!said.contains(".part"), "nothing was written to it: {said}");
}
