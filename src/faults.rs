//! Faults on demand, for the tests: compiled to nothing without the cargo feature `faults`, which what is shipped does
//! not have.
//!
//! The environment variable `CASCADE_FAULT` is a list of `PLACE=DEED`, separated by commas. A place is a name that the
//! program passes to [`at`] where something may go wrong; the deed goes wrong there:
//!
//! | deed | what happens |
//! |---|---|
//! | `panic` | a panic |
//! | `abort` | the process dies of ABRT |
//! | `segv` | the process dies of SEGV |
//! | `exit` | the process ends with status 1, and says nothing |
//! | `hang` | the process waits for ever |
//! | `spin` | the process does nothing, and does not stop |
//! | another | what a process tries that strangers have taken over, and logs: see `sys::attack` |
//!
//! A place may do something of its own instead: it asks [`wants`].
//!
//! | place | where it is |
//! |---|---|
//! | `input` | what serves a connection has read [`REQUEST`], which a client sends to ask for it |
//! | `recording` | the parent has forked a child and not noted it yet; the deed `late` waits until the child has ended |
//! | `fetched` | a worker has written a block and not reported it yet |
//! | `reserving` | a download has not taken its space on the disk yet; the deed `skip` leaves that out |
//! | `hasher` | the process that hashes the whole file begins |
//! | `syncing` | a download is complete and about to be synced |

/// Where the faults are named that are wanted.
pub const VARIABLE: &str = "CASCADE_FAULT";

/// What a client sends to ask for the fault at the place `input`: so the others' connections have none.
pub const REQUEST: &[u8] = b"FAULT!";

#[cfg(not(feature = "faults"))]
mod compiled {
    use nix::unistd::Pid;

    /// Nothing goes wrong here.
    #[inline(always)]
    pub fn at(_place: &str) {}

    /// Nobody wants that.
    #[inline(always)]
    pub fn wants(_place: &str, _deed: &str) -> bool {
        false
    }

    /// Nobody asks for a fault.
    #[inline(always)]
    pub fn asked(_input: &[u8]) {}

    /// The child is recorded at once.
    #[inline(always)]
    pub fn record_late(_child: Pid) {}

    /// Nobody watches.
    #[derive(Debug)]
    pub struct Witness;

    impl Witness {
        /// Watches nothing.
        #[inline(always)]
        pub fn new(_what: &'static str) -> Self {
            Self
        }
    }
}

#[cfg(feature = "faults")]
mod compiled {
    use std::sync::OnceLock;

    use nix::sys::signal::Signal;
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    use nix::unistd::Pid;

    use crate::logging;
    use crate::sys::exit::exit_now;
    use crate::sys::{attack, signals};

    /// What the variable said when it was looked at first.
    static WANTED: OnceLock<String> = OnceLock::new();

    /// The deeds that are wanted at a place.
    pub fn deeds(place: &str) -> impl Iterator<Item = &'static str> {
        let wanted = WANTED.get_or_init(|| std::env::var(super::VARIABLE).unwrap_or_default());
        wanted
            .split(',')
            .filter_map(|fault| fault.split_once('='))
            .filter_map(move |(at, deed)| (at == place).then_some(deed))
    }

    /// Whether a deed is wanted at a place.
    pub fn wants(place: &str, deed: &str) -> bool {
        deeds(place).any(|wanted| wanted == deed)
    }

    /// Here something may go wrong: it does, where that is wanted.
    pub fn at(place: &str) {
        for deed in deeds(place) {
            match deed {
                "panic" => panic!("a fault on demand"),
                "abort" => std::process::abort(),
                "segv" => signals::die_of(Signal::SIGSEGV),
                "exit" => exit_now(1),
                "hang" => loop {
                    std::thread::park();
                },
                "spin" => loop {
                    std::hint::spin_loop();
                },
                _ => attack::perform(place, deed),
            }
        }
    }

    /// A client may ask for a fault by what it sends.
    pub fn asked(input: &[u8]) {
        if input.starts_with(super::REQUEST) {
            at("input");
        }
    }

    /// A child that was not recorded yet may end first, where that is wanted.
    pub fn record_late(child: Pid) {
        if wants("recording", "late") {
            // It stays to be reaped.
            let _ = waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        }
    }

    /// Says which process runs its destructor: that of a loop's owner is its own, never one of its children's.
    #[derive(Debug)]
    pub struct Witness(&'static str);

    impl Witness {
        /// Watches `what`, where faults are wanted.
        pub fn new(what: &'static str) -> Self {
            Self(what)
        }
    }

    impl Drop for Witness {
        fn drop(&mut self) {
            if wants("witness", "drop") {
                let pid = std::process::id();
                logging::tell(&format!("pid {pid} drops {}", self.0));
            }
        }
    }
}

pub use compiled::*;
