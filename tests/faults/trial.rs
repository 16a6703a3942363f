//! What is checked after each fault: the listener is the process that it was, no zombie is left, descriptors are back
//! to what they were, a fresh client is served within a second, and the counters balance.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::eventually;
use crate::common::process::Finished;
use crate::common::procfs::{self, stat, zombies};
use crate::common::subject::{Inventory, Kind, Setup, Subject};

/// How soon a fresh client is to be served.
const PROMPT: Duration = Duration::from_secs(1);

/// A server to which a fault is going to happen.
pub struct Trial {
    pub subject: Subject,
    pub baseline: Inventory,
}

/// What a server says in the end: connections by outcome.
#[derive(Debug, Default)]
pub struct Counters {
    pub all: u64,
    pub by_outcome: BTreeMap<String, u64>,
    /// All that it said.
    pub log: String,
    /// All that it printed.
    pub output: String,
}

impl Trial {
    /// A server of the model `process` that logs its connections.
    #[track_caller]
    pub fn start(kind: Kind) -> Self {
        Self::of(Setup::new(kind))
    }

    #[track_caller]
    pub fn of(setup: Setup) -> Self {
        let subject = setup.options(&["-v"]).serve();
        let baseline = subject.baseline();
        Self { subject, baseline }
    }

    /// The process that accepts connections: a peer's is its supervisor's child.
    pub fn listener(&self) -> Pid {
        let server = self.subject.server.process().pid();
        let mut pids = self.baseline.keys().copied();
        match self.subject.kind {
            Kind::Peer => pids
                .find(|pid| stat(*pid).is_some_and(|stat| stat.parent == server))
                .expect("a peer has a listener"),
            _ => server,
        }
    }

    /// The processes that serve connections now, zombies not among them.
    pub fn serving(&self) -> Vec<Pid> {
        procfs::children(self.listener())
            .into_iter()
            .filter(|pid| !self.baseline.contains_key(pid))
            .filter(|pid| stat(*pid).is_some_and(|stat| stat.state != 'Z'))
            .collect()
    }

    /// The process that serves this connection, as the log says.
    #[track_caller]
    pub fn child_of(&self, stream: &TcpStream) -> Pid {
        let client = stream.local_addr().expect("a socket has an address");
        let line = format!(" from {client}");
        let mut child = None;
        eventually("the connection is accepted", || {
            let log = self.log();
            let accepted = log.lines().find(|at| at.ends_with(&line));
            child = accepted.and_then(|line| {
                let (_, rest) = line.split_once("accept pid ")?;
                rest.split(' ').next()?.parse().ok()
            });
            child.is_some()
        });
        Pid::from_raw(child.expect("it was found"))
    }

    pub fn log(&self) -> String {
        self.subject.server.process().stderr()
    }

    /// Waits until the log has a line with this in it.
    #[track_caller]
    pub fn wait_for_log(&self, what: &str) {
        eventually(what, || self.log().contains(what));
    }

    /// Stops the listener in its tracks until [`Trial::thaw`].
    #[track_caller]
    pub fn freeze(&self) {
        let listener = self.listener();
        kill(listener, Signal::SIGSTOP).expect("it runs");
        eventually("it stands still", || {
            stat(listener).is_some_and(|stat| stat.state == 'T')
        });
    }

    pub fn thaw(&self) {
        kill(self.listener(), Signal::SIGCONT).expect("it is there");
    }

    /// Ends it, where there is nothing more to be checked than its end and its counters.
    #[track_caller]
    pub fn stop(self) -> Counters {
        let Self { subject, .. } = self;
        subject.server.process().signal(Signal::SIGTERM);
        Self::ended(subject)
    }

    /// Waits for the end of a server that was asked to stop.
    #[track_caller]
    pub fn ended(subject: Subject) -> Counters {
        let ended = subject.server.finish();
        assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
        subject.scene.assert_nothing_left();
        Counters::read(ended)
    }

    /// Checks that a fresh client is served within a second; on a busy machine, in one of a few attempts.
    #[track_caller]
    pub fn assert_serves_promptly(&self) {
        let mut took = Vec::new();
        for number in 0..5 {
            let begun = Instant::now();
            self.subject.exchange(number);
            if begun.elapsed() <= PROMPT {
                return;
            }
            took.push(begun.elapsed());
        }
        panic!("fresh clients had to wait: {took:?}");
    }

    /// Checks that nothing is left of all connections. A member of a pool of processes that died has a successor.
    #[track_caller]
    pub fn assert_at_rest(&self) {
        if self.subject.model != "prefork" {
            return self.subject.assert_at_rest(&self.baseline);
        }
        let listener = self.listener();
        let sorted = |inventory: &Inventory| {
            let mut all: Vec<_> = inventory.values().copied().collect();
            all.sort_unstable();
            all
        };
        eventually(
            "there are as many processes as before, and descriptors",
            || {
                let now = self.subject.inventory();
                now.contains_key(&listener)
                    && sorted(&now) == sorted(&self.baseline)
                    && zombies(now.into_keys()).is_empty()
            },
        );
    }

    /// Checks what must hold after each fault, and ends the server; answers what it counted. Any connection may have
    /// ended in any way but a crash, of which there were so many.
    #[track_caller]
    pub fn survived(self, crashes: u64) -> Counters {
        self.assert_at_rest();
        self.assert_serves_promptly();
        self.assert_at_rest();
        let counters = self.stop();
        assert_eq!(counters.of("crashed"), crashes, "{}", counters.log);
        // Where it listens: no child has printed what its parent had in a buffer.
        assert_eq!(counters.output.lines().count(), 1, "{}", counters.output);
        counters
    }
}

impl Counters {
    /// Reads the line with which a server ends; the counters must balance.
    #[track_caller]
    pub fn read(ended: Finished) -> Self {
        let log = ended.stderr;
        let counted = log
            .lines()
            .filter_map(|line| {
                line.split_once("]: stopped after ")
                    .or(line.split_once("]: served "))
            })
            .next_back();
        let (_, counted) = counted.unwrap_or_else(|| panic!("it says what it counted:\n{log}"));
        // Those who were not let in are no connections.
        let (counted, _) = counted.split_once("; ").unwrap_or((counted, ""));
        let (all, outcomes) = counted.split_once(": ").unwrap_or((counted, ""));
        let number = |word: Option<&str>| word.and_then(|word| word.parse().ok());
        let by_outcome: BTreeMap<String, u64> = outcomes
            .split(", ")
            .filter_map(|part| part.rsplit_once(' '))
            .map(|(outcome, count)| {
                let count = number(Some(count)).unwrap_or_else(|| panic!("a count: {counted}"));
                (outcome.to_owned(), count)
            })
            .collect();
        let all = number(all.split(' ').next()).unwrap_or_else(|| panic!("a count: {counted}"));
        let sum: u64 = by_outcome.values().sum();
        assert_eq!(all, sum, "as many ended as were accepted: {counted}");
        Self {
            all,
            by_outcome,
            output: ended.stdout,
            log,
        }
    }

    /// How many ended so.
    pub fn of(&self, outcome: &str) -> u64 {
        self.by_outcome.get(outcome).copied().unwrap_or_default()
    }
}

/// Makes a test of each service.
#[macro_export]
macro_rules! each_service {
    ($($(#[$attribute:meta])* $test:ident)*) => {$(
        $(#[$attribute])*
        mod $test {
            use $crate::common::subject::Kind;

            #[test]
            fn echo() {
                super::$test(Kind::Echo);
            }

            #[test]
            fn tracker() {
                super::$test(Kind::Tracker);
            }

            #[test]
            fn peer() {
                super::$test(Kind::Peer);
            }
        }
    )*};
}
