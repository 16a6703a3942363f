//! A file that is downloaded from stand-ins, and interrupted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::eventually;
use super::peers;
use super::process::Process;
use super::sample::Sample;
use super::scene::{Invocation, Scene};
use super::standin::{Accepts, Asked, StandIn};

pub const BLOCK: usize = 4096;
pub const BLOCKS: usize = 64;
/// How many blocks an unfinished download got.
pub const GIVEN: usize = 20;

/// A file, its cascade file in a scene, and where its data belong.
pub struct Download {
    pub scene: Scene,
    pub sample: Sample,
    pub cascade: PathBuf,
    options: Vec<&'static str>,
}

impl Download {
    pub fn new() -> Self {
        Self::of(Sample::new("data", BLOCKS * BLOCK - 5, BLOCK))
    }

    pub fn of(sample: Sample) -> Self {
        let scene = Scene::new();
        let cascade = sample.write_cascade(&scene.path(""));
        Self {
            scene,
            sample,
            cascade,
            options: Vec::new(),
        }
    }

    /// The same with these options.
    pub fn with(mut self, options: &[&'static str]) -> Self {
        self.options = options.to_vec();
        self
    }

    pub fn data(&self) -> PathBuf {
        self.scene.path("data")
    }

    pub fn part(&self) -> PathBuf {
        self.sample.part(&self.data())
    }

    pub fn get(&self, peer: &StandIn) -> Invocation<'_> {
        self.scene
            .cascade("get")
            .args(&self.options)
            .peer(peer.address())
            .arg(&self.cascade)
    }

    pub fn honest(&self) -> StandIn {
        peers::start(&self.sample, peers::keeps_the_connection_open)
    }

    pub fn stalling(&self) -> StandIn {
        peers::start_with(Accepts::Together, &self.sample, peers::stalls_after(GIVEN))
    }

    /// Starts a download that comes so far and no further.
    #[track_caller]
    pub fn get_in_mid_course(&self, path: &Path) -> (StandIn, Process) {
        let before = self.sample.held(path).len();
        let stalling = self.stalling();
        let get = self.get(&stalling).start();
        eventually("what the peer gave is on the disk", || {
            self.sample.held(path).len() == before + GIVEN
        });
        (stalling, get)
    }

    /// Completes the download, and checks that only what was missing was asked for.
    #[track_caller]
    pub fn completes_keeping(&self, held: &BTreeSet<u64>) {
        let honest = self.honest();
        let done = self.get(&honest).run().assert_code(0);
        assert_eq!(done.results(), [self.sample.line(&self.data())]);
        self.sample.assert_complete(&self.data());
        assert!(!self.part().exists(), "the .part was renamed");
        let asked: BTreeSet<u64> = honest.asked().iter().map(Asked::block).collect();
        let missing: BTreeSet<u64> = &self.sample.all() - held;
        assert_eq!(asked, missing, "what is missing is asked for, nothing else");
    }
}
