//! A server of any kind under any model, and how to talk to it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

use nix::unistd::Pid;

use super::process::Server;
use super::sample::Sample;
use super::scene::Scene;
use super::{clients, eventually, trackers};

/// Blocks of the file that the peer serves.
pub const BLOCK: usize = 3000;
/// Members of the pools.
pub const POOL: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Echo,
    Tracker,
    Peer,
}

/// A server that runs, and how to talk to it.
pub struct Subject {
    pub kind: Kind,
    pub model: &'static str,
    pub sample: Sample,
    pub server: Server,
    // After the server, which it outlives.
    pub scene: Scene,
}

/// How often in a row a server must look the same to be at rest.
const LOOKS: u32 = 20;

impl Subject {
    pub fn start(kind: Kind, model: &'static str) -> Self {
        Self::start_with(kind, model, &[])
    }

    #[track_caller]
    pub fn start_with(kind: Kind, model: &'static str, options: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", kind, model, options)
    }

    #[track_caller]
    pub fn start_at(listen: &str, kind: Kind, model: &'static str, options: &[&str]) -> Self {
        let scene = Scene::new();
        let sample = Sample::new("data", 20 * BLOCK, BLOCK);
        let pool = POOL.to_string();
        let with = |invocation: super::scene::Invocation<'_>| {
            invocation
                .args(["-l", listen, "--model", model, "--pool", &pool])
                .args(options)
                .serve()
        };
        let server = match kind {
            Kind::Echo => with(scene.cascade("echo").arg("serve")),
            Kind::Tracker => with(scene.cascade("tracker").arg("--open")),
            Kind::Peer => {
                sample.write_data(&scene.path(""));
                let cascade = sample.write_cascade(&scene.path(""));
                with(scene.cascade("peer").arg(cascade))
            }
        };
        Self {
            kind,
            model,
            sample,
            server,
            scene,
        }
    }

    pub fn connect(&self) -> TcpStream {
        clients::connect(self.server.address())
    }

    /// A request; what it asks for depends on `number`.
    pub fn request(&self, number: usize) -> Vec<u8> {
        match self.kind {
            Kind::Echo => format!("line {number} \0\u{ff}\n").into_bytes(),
            Kind::Tracker => subscribe(number),
            Kind::Peer => clients::request(&self.sample.hash(), (number % 20) as u64),
        }
    }

    /// Reads the reply to a request, which must be the right one.
    #[track_caller]
    pub fn check_reply(&self, stream: &mut TcpStream, number: usize) {
        match self.kind {
            Kind::Echo => {
                let mut line = vec![0; self.request(number).len()];
                stream.read_exact(&mut line).expect("an echo");
                assert_eq!(line, self.request(number));
            }
            Kind::Tracker => {
                let mut reply = Vec::new();
                stream.read_to_end(&mut reply).expect("a response");
                assert_eq!(reply.first(), Some(&0), "{reply:02x?}");
                assert_eq!((reply.len() - 5) % 12, 0);
            }
            Kind::Peer => {
                let (status, block) = clients::response(stream).expect("a response");
                assert_eq!(status, 0);
                let expected = self.sample.block((number % 20) as u64);
                assert!(Some(&block[..]) == expected, "it is another block");
            }
        }
    }

    /// One connection with one request.
    #[track_caller]
    pub fn exchange(&self, number: usize) {
        let mut stream = self.connect();
        stream
            .write_all(&self.request(number))
            .expect("the server reads");
        self.check_reply(&mut stream, number);
    }

    pub fn serves_one_after_the_other(&self) -> bool {
        self.model == "iterative"
    }

    /// Stops it; answers what it says became of its connections, which it says in any case, or with `-v`.
    #[track_caller]
    pub fn stop(self) -> String {
        let Self { server, scene, .. } = self;
        let log = server.stop().stderr;
        scene.assert_nothing_left();
        let tally = log.lines().find_map(|line| {
            let (_, tally) = line
                .split_once("]: stopped after ")
                .or_else(|| line.split_once("]: served "))?;
            Some(tally.to_owned())
        });
        tally.unwrap_or_else(|| panic!("it says nothing: {log}"))
    }

    /// How many processes it has when nobody is connected.
    pub fn processes(&self) -> usize {
        let roles = if self.kind == Kind::Peer { 2 } else { 1 };
        let members = if self.model == "prefork" { POOL } else { 0 };
        roles + members
    }

    /// What each process has: descriptors and threads.
    pub fn inventory(&self) -> BTreeMap<i32, (usize, usize)> {
        let count = |pid: Pid, what: &str| {
            fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count)
        };
        let left = self.scene.left();
        left.into_iter()
            .map(|pid| (pid.as_raw(), (count(pid, "fd"), count(pid, "task"))))
            .collect()
    }

    /// What it has at rest, once its processes have begun.
    #[track_caller]
    pub fn baseline(&self) -> BTreeMap<i32, (usize, usize)> {
        self.exchange(0);
        let mut before = BTreeMap::new();
        let mut looks = 0;
        eventually("the server rests", || {
            let now = self.inventory();
            let rests = now == before && now.len() == self.processes();
            before = now;
            // On a busy machine a process that was just forked may not have got to closing what is not its own.
            looks = if rests { looks + 1 } else { 0 };
            looks >= LOOKS
        });
        before
    }

    /// Checks that nothing is left of all connections, while the server runs and afterwards.
    #[track_caller]
    pub fn assert_back_to(self, baseline: &BTreeMap<i32, (usize, usize)>) {
        eventually("processes, threads and descriptors are as before", || {
            self.inventory() == *baseline && zombies(baseline).is_empty()
        });
        let Self { server, scene, .. } = self;
        server.stop();
        scene.assert_nothing_left();
    }

    /// Waits until the server has accepted so many connections: with `-v` it says so.
    #[track_caller]
    pub fn wait_for_accepts(&self, count: usize) {
        eventually("the server accepts", || {
            let log = self.server.process().stderr();
            log.lines()
                .filter(|line| line.contains("]: accept "))
                .count()
                >= count
        });
    }
}

/// A subscription of a peer with a port of its own.
pub fn subscribe(number: usize) -> Vec<u8> {
    trackers::request(2, &[7; 32], peer(number))
}

pub fn peer(number: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, 10_000 + number as u16)
}

/// Children of these processes that ended and were not waited for.
pub fn zombies(of: &BTreeMap<i32, (usize, usize)>) -> Vec<String> {
    let stats = fs::read_dir("/proc")
        .expect("/proc is mounted")
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    stats
        .filter(|stat| {
            // What follows the name, which is in parentheses: state, parent.
            let mut words = stat.rsplit(") ").next().unwrap_or("").split(' ');
            let zombie = words.next() == Some("Z");
            let parent = words.next().and_then(|parent| parent.parse().ok());
            zombie && parent.is_some_and(|parent: i32| of.contains_key(&parent))
        })
        .collect()
}

/// A test of a model, for each of them.
#[macro_export]
macro_rules! under_every_model {
    ($($test:ident: $($model:ident)*;)*) => {$(
        mod $test {$(
            #[test]
            fn $model() {
                super::$test(stringify!($model));
            }
        )*}
    )*};
}

/// Tests of a kind of server and a model, for each of them.
#[macro_export]
macro_rules! every_service_under_every_model {
    ($($test:ident)*) => {
        $crate::every_service_under_every_model!(@services ($($test)*)
            echo Echo, tracker Tracker, peer Peer);
    };
    (@services $tests:tt $($service:ident $kind:ident),*) => {$(
        mod $service {
            $crate::every_service_under_every_model!(@models $kind $tests
                iterative process thread prethread event prefork);
        }
    )*};
    (@models $kind:ident $tests:tt $($model:ident)*) => {$(
        mod $model {
            const MODEL: &str = stringify!($model);
            $crate::every_service_under_every_model!(@tests $kind $tests);
        }
    )*};
    (@tests $kind:ident ($($test:ident)*)) => {$(
        #[test]
        fn $test() {
            $crate::$test($crate::common::subject::Kind::$kind, MODEL);
        }
    )*};
}
