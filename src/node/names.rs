//! Names are looked up again while a node runs: every few minutes, at a reload, and when nothing answers.
//!
//! A process of its own does it, since a name server may take as long as it likes. It was forked before anything was
//! confined, so it sees the system's configuration as it is then. It says only what has changed.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::Pid;

use crate::confine::Confinement;
use crate::confine::keeper::{self, ALONE, Helper};
use crate::net::address::HostPort;
use crate::net::resolve;
use crate::sys::passing;
use crate::sys::poll::wait_readable;

/// How often names are looked up in any case.
const EVERY: Duration = Duration::from_secs(300);
/// How long after a look-up the next one is at the earliest, where something does not answer or is not known; it doubles
/// while nothing changes.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What is asked for: a look-up when the pause is over, or at once.
const SOON: u8 = 0;
const NOW: u8 = 1;

/// The addresses of each name, in order; nothing of a name that could not be looked up.
pub type Found = Vec<Option<Vec<SocketAddr>>>;

/// The end of who wants to know.
#[derive(Debug)]
pub struct Names {
    socket: OwnedFd,
}

impl Names {
    /// Both ends for names of which this is known; nothing where there are only addresses.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new(names: Vec<HostPort>, known: Found) -> io::Result<Option<(Self, Helper<'static>)>> {
        if names.iter().all(|name| name.host.parse::<IpAddr>().is_ok()) {
            return Ok(None);
        }
        let (socket, theirs) = passing::pair()?;
        let helper = Helper {
            task: "looks up names".into(),
            socket: theirs,
            keep: Vec::new(),
            life: Box::new(move |socket| match look_up_again(socket, &names, &known) {
                Ok(()) => ALONE,
                Err(error) if is_closed(&error) => ALONE,
                Err(_) => 1,
            }),
        };
        Ok(Some((Self { socket }, helper)))
    }

    /// Something does not answer.
    pub fn look_up_soon(&self) {
        self.ask(SOON);
    }

    /// Somebody asks for it.
    pub fn look_up_now(&self) {
        self.ask(NOW);
    }

    fn ask(&self, when: u8) {
        // Where the other end is busy, there is such a request already. Not with sendmsg(2), which a confined process may
        // not use.
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let _ = send(self.socket.as_raw_fd(), &[when], flags);
    }

    /// What was found that is new.
    pub fn news(&self) -> Option<Found> {
        let mut passed = passing::receive(self.socket.as_fd()).ok()??;
        let mut text = Vec::new();
        let mut file = File::from(passed.descriptors.pop()?);
        file.read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// Starts the process, and one that keeps it alive; nothing where there are only addresses.
///
/// # Errors
/// Where the system has no descriptor or process left.
pub fn start(
    names: Vec<HostPort>,
    known: Found,
    confinement: &Confinement,
) -> anyhow::Result<Option<(Names, Pid)>> {
    let Some((names, helper)) = Names::new(names, known).context("cannot begin")? else {
        return Ok(None);
    };
    // The answers of name servers are read there.
    let begin = || {
        confinement.become_user()?;
        confinement.gain_nothing()?;
        Ok(None)
    };
    let keeper = keeper::start(vec![helper], begin)?;
    Ok(Some((names, keeper)))
}

impl AsFd for Names {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The life of the process.
fn look_up_again(socket: &OwnedFd, names: &[HostPort], known: &Found) -> io::Result<()> {
    let mut known = known.clone();
    let mut pause = FIRST_PAUSE;
    let mut looked = Instant::now();
    loop {
        let missing = known.iter().any(Option::is_none);
        let due = looked + if missing { pause } else { EVERY };
        if !wait_until_due(socket, looked + pause, due)? {
            return Ok(());
        }
        looked = Instant::now();
        let new = renewed(&known, look_up(names));
        if new == known {
            pause = (pause * 2).min(LONGEST_PAUSE);
            continue;
        }
        let mut file = File::from(memfd_create(c"names", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&serde_json::to_vec(&new)?)?;
        file.rewind()?;
        match passing::send(socket.as_fd(), &[NOW], &[file.as_fd()]) {
            // Nobody reads that now: next time.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => {
                sent?;
                (known, pause) = (new, FIRST_PAUSE);
            }
        }
    }
}

/// Waits until a look-up is due: at `due`, or when one was asked for and `soon` is over. Says whether anybody is left who
/// could ask.
fn wait_until_due(socket: &OwnedFd, soon: Instant, mut due: Instant) -> io::Result<bool> {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(true);
        }
        if !wait_readable(&[Some(socket.as_fd())], Some(left))?[0] {
            continue;
        }
        let Some(asked) = passing::receive(socket.as_fd())? else {
            return Ok(false);
        };
        due = match asked.bytes.first() {
            Some(&NOW) => Instant::now(),
            _ => due.min(soon),
        };
    }
}

fn look_up(names: &[HostPort]) -> Found {
    let addresses = |name: &HostPort| resolve::here(&name.host, &name.port).ok();
    names.iter().map(addresses).collect()
}

/// What is known now: of a name that cannot be looked up, what was known before. The order in which a name server lists
/// the same addresses means nothing.
fn renewed(known: &Found, found: Found) -> Found {
    let one = |(known, found): (&Option<Vec<SocketAddr>>, Option<Vec<SocketAddr>>)| match known {
        Some(known) if found.as_ref().is_none_or(|new| is_same(known, new)) => Some(known.clone()),
        _ => found,
    };
    known.iter().zip(found).map(one).collect()
}

/// Whether these are the same addresses, in whatever order.
fn is_same(one: &[SocketAddr], other: &[SocketAddr]) -> bool {
    one.len() == other.len() && one.iter().all(|address| other.contains(address))
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn what_cannot_be_looked_up_stays_what_it_was_and_order_is_no_news() {
        let known = vec![Some(vec![address(1), address(2)]), None];
        let same = vec![Some(vec![address(2), address(1)]), None];
        assert_eq!(renewed(&known, same), known);
        assert_eq!(renewed(&known, vec![None, None]), known);
        let new = vec![Some(vec![address(3)]), Some(vec![address(4)])];
        assert_eq!(renewed(&known, new.clone()), new);
    }

    #[test]
    fn only_names_are_looked_up_again_and_what_is_new_is_said() {
        let parse = |text: &str| text.parse::<HostPort>().expect("a name");
        let only_addresses = vec![parse("192.0.2.1:1"), parse("[::1]:1")];
        let none = Names::new(only_addresses, vec![None, None]).expect("a pair");
        assert!(none.is_none());
        let names = vec![parse("localhost:7")];
        let old = vec![Some(vec![address(7)])];
        let (names, helper) = Names::new(names, old).expect("a pair").expect("a name");
        let thread = std::thread::spawn(move || (helper.life)(&helper.socket));
        names.look_up_now();
        wait_readable(&[Some(names.as_fd())], None).expect("it answers");
        let found = names.news().expect("it has changed");
        let addresses = found[0].as_ref().expect("it is known");
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
        assert_eq!(names.news(), None);
        drop(names);
        assert_eq!(thread.join().expect("no panic"), ALONE);
    }
}
