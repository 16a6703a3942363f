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
//! | another | what a process tries that strangers have taken over, and logs: see `sys::attack` |
//!
//! A place may do something of its own instead: it asks [`wants`].

/// Where the faults are named that are wanted.
pub const VARIABLE: &str = "CASCADE_FAULT";

#[cfg(not(feature = "faults"))]
mod compiled {
    /// Nothing goes wrong here.
    #[inline(always)]
    pub fn at(_place: &str) {}

    /// Nobody wants that.
    #[inline(always)]
    pub fn wants(_place: &str, _deed: &str) -> bool {
        false
    }
}

#[cfg(feature = "faults")]
mod compiled {
    use std::sync::OnceLock;

    use nix::sys::signal::Signal;

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
                _ => attack::perform(place, deed),
            }
        }
    }
}

pub use compiled::*;
