//! Networks that are a test's own: the namespace of a thread, which goes when the thread does, whatever happens.

use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace.
pub struct Network {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    tid: Pid,
}

impl Network {
    /// One with nothing in it; none without root.
    pub fn new() -> Option<Self> {
        let (jobs, to_do) = channel::<Job>();
        let (begun, begins) = channel();
        let thread = std::thread::spawn(move || {
            let own = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid());
            let failed = own.is_err();
            begun.send(own).expect("somebody waits");
            if !failed {
                to_do.into_iter().for_each(|job| job());
            }
        });
        let tid = begins.recv().expect("the thread begins").ok()?;
        let network = Self {
            jobs: Some(jobs),
            thread: Some(thread),
            tid,
        };
        network.ip("link set lo up");
        Some(network)
    }

    /// Does something there: sockets that are made, and processes that are started, stay there.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (send, receive) = channel();
        let job = Box::new(move || {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let _ = send.send(done);
        });
        let jobs = self.jobs.as_ref().expect("it was not dropped");
        jobs.send(job).expect("the thread lives");
        match receive.recv().expect("the thread answers") {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// ip(8) there, with these words as arguments.
    pub fn ip(&self, arguments: &str) {
        let words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        let status = self.run(move || Command::new("ip").args(words).status());
        assert!(status.expect("ip of iproute2").success(), "ip {arguments}");
    }

    /// Joins two networks by a cable: here and there are the addresses of its ends, such as 10.8.0.1/24.
    pub fn join(&self, here: &str, other: &Self, there: &str) {
        self.ip(&format!(
            "link add cable type veth peer name cable netns {}",
            other.tid
        ));
        for (network, address) in [(self, here), (other, there)] {
            network.ip(&format!("addr add {address} dev cable"));
            network.ip("link set cable up");
        }
    }

    /// Cuts the cable at this end, without a word to anybody.
    pub fn cut(&self) {
        self.ip("addr flush dev cable");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
