//! A server that is put to the test: each of the three services, under any model, and how to talk to it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::fs::PermissionsExt;

use nix::unistd::Pid;

use super::process::Server;
use super::procfs::{self, zombies};
use super::sample::Sample;
use super::scene::{Invocation, Scene};
use super::{clients, eventually, trackers};

/// Length of a block of the file that the peer serves, unless the test has another.
pub const BLOCK: usize = 3000;
/// Members of the pools.
pub const POOL: usize = 8;
/// How often in a row a server must look the same to be at rest.
const LOOKS: u32 = 20;

/// All models.
pub const MODELS: [&str; 6] = [
    "iterative",
    "process",
    "thread",
    "prethread",
    "event",
    "prefork",
];

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Echo,
    Tracker,
    Peer,
}

/// What each process of a server has: descriptors and threads.
pub type Inventory = BTreeMap<Pid, (usize, usize)>;

/// A server that runs, and how to talk to it.
pub struct Subject {
    pub kind: Kind,
    pub model: &'static str,
    pub sample: Sample,
    pub server: Server,
    /// Processes that do for a confined server what takes a path: read its configuration, write its state.
    outside: usize,
    // After the server, which it outlives.
    pub scene: Scene,
}

/// A server that is about to be started.
pub struct Setup {
    kind: Kind,
    model: &'static str,
    options: Vec<String>,
    environment: Vec<(&'static str, String)>,
    sample: Sample,
    under: Vec<String>,
    listen: String,
    files: Vec<(&'static str, String)>,
}

impl Setup {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            model: "process",
            options: Vec::new(),
            environment: Vec::new(),
            sample: Sample::new("data", 20 * BLOCK, BLOCK),
            under: Vec::new(),
            listen: "127.0.0.1:0".into(),
            files: Vec::new(),
        }
    }

    pub fn model(self, model: &'static str) -> Self {
        Self { model, ..self }
    }

    pub fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|&it| it.to_owned()));
        self
    }

    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// The file that a peer serves.
    pub fn sample(self, sample: Sample) -> Self {
        Self { sample, ..self }
    }

    /// A file in the directory in which it runs.
    pub fn file(mut self, name: &'static str, text: &str) -> Self {
        self.files.push((name, text.into()));
        self
    }

    /// The program that runs it, with arguments: it must end in exec(2).
    pub fn under(self, program: &[&str]) -> Self {
        let under = program.iter().map(|&it| it.to_owned()).collect();
        Self { under, ..self }
    }

    /// Where it listens, instead of a free port of 127.0.0.1.
    pub fn listen(self, address: &str) -> Self {
        let listen = address.into();
        Self { listen, ..self }
    }

    /// Starts it, and waits until it listens.
    #[track_caller]
    pub fn serve(self) -> Subject {
        let scene = Scene::new();
        if !self.under.is_empty() {
            // It may be another user who has to read all of it.
            fs::set_permissions(scene.path(""), fs::Permissions::from_mode(0o755))
                .expect("our own directory");
            fs::copy(env!("CARGO_BIN_EXE_cascade"), scene.path("cascade")).expect("the binary");
        }
        for (name, text) in &self.files {
            fs::write(scene.path(name), text).expect("our own directory");
        }
        if self.kind == Kind::Peer {
            self.sample.write_data(&scene.path(""));
            self.sample.write_cascade(&scene.path(""));
        }
        let server = self.invocation(&scene).serve();
        let takes_path = |option: &&String| matches!(option.as_str(), "--config" | "--state");
        Subject {
            outside: match self.options.iter().filter(takes_path).count() {
                0 => 0,
                // And who keeps them alive.
                helpers => helpers + 1,
            },
            kind: self.kind,
            model: self.model,
            sample: self.sample,
            server,
            scene,
        }
    }

    fn invocation<'a>(&self, scene: &'a Scene) -> Invocation<'a> {
        let mut invocation = match self.under.split_first() {
            None => scene.program(env!("CARGO_BIN_EXE_cascade")),
            Some((program, rest)) => {
                let program = scene.program(program).args(rest);
                program.arg(scene.path("cascade"))
            }
        };
        let command = match self.kind {
            Kind::Echo => &["echo", "serve"][..],
            // Its configuration may say which hashes it tracks.
            Kind::Tracker if !self.files.is_empty() => &["tracker"],
            Kind::Tracker => &["tracker", "--open"],
            Kind::Peer => &["peer"],
        };
        for (name, value) in &self.environment {
            invocation = invocation.env(name, value);
        }
        let invocation = invocation
            .args(command)
            .args(["-l", &self.listen, "--model", self.model])
            .args(["--pool", &POOL.to_string()])
            .args(&self.options);
        match self.kind {
            Kind::Peer => invocation.arg(format!("{}.cascade", self.sample.name)),
            _ => invocation,
        }
    }
}

impl Subject {
    #[track_caller]
    pub fn start(kind: Kind, model: &'static str) -> Self {
        Setup::new(kind).model(model).serve()
    }

    #[track_caller]
    pub fn start_with(kind: Kind, model: &'static str, options: &[&str]) -> Self {
        Setup::new(kind).model(model).options(options).serve()
    }

    #[track_caller]
    pub fn start_at(listen: &str, kind: Kind, model: &'static str, options: &[&str]) -> Self {
        let setup = Setup::new(kind).model(model).options(options);
        setup.listen(listen).serve()
    }

    pub fn connect(&self) -> TcpStream {
        clients::connect(self.server.address())
    }

    /// A request; what it asks for depends on `number`.
    pub fn request(&self, number: usize) -> Vec<u8> {
        match self.kind {
            Kind::Echo => format!("line {number} \0\u{ff}\n").into_bytes(),
            Kind::Tracker => subscribe(number),
            Kind::Peer => clients::request(&self.sample.hash(), self.block(number)),
        }
    }

    fn block(&self, number: usize) -> u64 {
        (number % self.sample.blocks()) as u64
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
                let expected = self.sample.block(self.block(number));
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
        roles + members + self.outside
    }

    /// What each process has.
    pub fn inventory(&self) -> Inventory {
        let left = self.scene.left();
        left.into_iter()
            .map(|pid| (pid, (procfs::count(pid, "fd"), procfs::count(pid, "task"))))
            .collect()
    }

    /// What it has at rest, once its processes have begun.
    #[track_caller]
    pub fn baseline(&self) -> Inventory {
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

    /// Checks that nothing is left of all connections: the same processes with as many descriptors, and no zombie.
    #[track_caller]
    pub fn assert_at_rest(&self, baseline: &Inventory) {
        eventually("processes, threads and descriptors are as before", || {
            self.inventory() == *baseline && zombies(baseline.keys().copied()).is_empty()
        });
    }

    /// Checks that nothing is left of all connections, while the server runs and afterwards.
    #[track_caller]
    pub fn assert_back_to(self, baseline: &Inventory) {
        self.assert_at_rest(baseline);
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

/// The peer of that subscription.
pub fn peer(number: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, 10_000 + number as u16)
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
