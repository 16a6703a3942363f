//! Sharing files: a supervisor of the roles that are there already, and the count of copies.
//!
//! ```text
//! supervisor
//! ├─ tracker   unless another one is named                crate::service::tracker
//! ├─ peer      a node that only seeds; what it does → pipe    crate::node
//! ├─ lister    peers found → pipe                         crate::node::announcer
//! └─ watcher   one remote peer; its map is full → exit status   watch
//! ```
//!
//! The supervisor never reads a byte that a stranger sent.

mod copies;
pub mod ledger;
pub mod tracker;
mod traffic;
mod view;
pub mod watch;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::cascade_file::Geometry;
use crate::exit::Status;
use crate::hash::CascadeHash;
use crate::net::address::HostPort;
use crate::net::link::{FileName, Link};
use crate::node::FileState;
use crate::node::told::Told;
use crate::output::print_bytes;
use crate::sys::child::{self, Ended, How};
use crate::sys::pipe::{Received, Receiver};
use crate::sys::poll::wait_readable;
use crate::sys::signals::Signals;
use copies::Copied;
pub use copies::Copies;
pub use traffic::Traffic;
pub use view::View;

/// So many reports are taken before something else has its turn.
const REPORTS: u32 = 1000;
/// How often is looked at what is due.
const TICK: Duration = Duration::from_millis(200);
/// The signals at which it ends.
const ENDING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
/// How long the peer's transfers may take to finish, and a little more.
const GRACE: Duration = Duration::from_secs(12);

/// A file that is shared.
#[derive(Debug)]
pub struct Shared {
    /// The data.
    pub data: PathBuf,
    /// What describes them.
    pub cascade: PathBuf,
    /// The name under which others save it.
    pub name: FileName,
    /// Its name on the network.
    pub hash: CascadeHash,
    /// Its blocks.
    pub geometry: Geometry,
    /// Whether its line was printed.
    pub is_printed: bool,
    /// The data as they were when they were hashed, where that was done just now.
    pub hashed: Option<FileState>,
    /// The cascade file, where it has no place on a disk.
    pub in_memory: Option<Arc<File>>,
}

/// The processes of a share, and what they are for.
#[derive(Debug)]
pub struct Sharing {
    /// The files.
    pub files: Vec<Shared>,
    /// The tracker as others reach it.
    pub tracker: HostPort,
    /// The tracker's process, where it is ours.
    pub tracker_role: Option<Pid>,
    /// The peer's process.
    pub peer_role: Pid,
    /// What the peer tells.
    pub told: Receiver<Told>,
    /// Who has which file.
    pub copies: Copies,
    /// What was sent.
    pub traffic: Traffic,
    /// What is shown of that.
    pub view: View,
    /// It ends where nothing was sent for this long.
    pub timeout: Option<Duration>,
    /// Files that are complete and whose link was not printed, for the peer does not listen yet.
    pub waiting: Vec<CascadeHash>,
    /// Where the peer listens, once it does.
    pub port: Option<u16>,
}

impl Sharing {
    /// Prints links as their files become ready, and goes on until a signal, until there are copies enough, or until
    /// a role ended.
    ///
    /// # Errors
    /// Where the loop cannot go on, or a role ended that should not have.
    pub fn run(&mut self, signals: &Signals) -> anyhow::Result<Status> {
        loop {
            self.hear()?;
            self.print_links()?;
            if let Some(port) = self.port {
                self.copies.watch(port)?;
                if self.copies.are_enough() {
                    return Ok(Status::Done);
                }
            }
            if self.is_deserted() {
                return Ok(self
                    .copies
                    .wanted()
                    .map_or(Status::Done, |_| Status::DataMissing));
            }
            self.view
                .update(&mut self.traffic, self.copies.complete_hosts());
            self.wait(signals)?;
            if signals.take_any(&ENDING).is_some() {
                return Ok(Status::Done);
            }
            if let Some(status) = self.reap()? {
                return Ok(status);
            }
        }
    }

    /// Takes what the peer has told.
    fn hear(&mut self) -> io::Result<()> {
        for _ in 0..REPORTS {
            match self.told.receive()? {
                Received::Record(Told::Listening(port)) => {
                    self.port.get_or_insert(port);
                }
                Received::Record(Told::Complete(hash)) => self.waiting.push(hash),
                Received::Record(Told::Sent(to, sent)) => {
                    let (bytes, has_all) = self.copies.sent(to, sent);
                    self.traffic.add(Instant::now(), to, bytes);
                    self.copied(has_all);
                }
                Received::Record(Told::Checked(hash, bytes)) => {
                    if let Some(index) = self.files.iter().position(|file| file.hash == hash) {
                        self.view.checked(index, bytes);
                    }
                }
                Received::Garbage => log::warn!("a report that is none was ignored"),
                Received::Empty | Received::Closed => break,
            }
        }
        Ok(())
    }

    /// A host has all of a file, perhaps.
    fn copied(&mut self, copied: Option<Copied>) {
        let Some((host, index)) = copied else { return };
        let file = &self.files[index];
        let (copies, wanted) = (self.copies.of(file.hash), self.copies.wanted());
        self.view.copied(file, host, copies, wanted);
        self.traffic.is_complete(host);
    }

    /// Whether nobody has come for too long.
    fn is_deserted(&self) -> bool {
        let idle = self.traffic.idle(Instant::now());
        self.port.is_some() && self.timeout.is_some_and(|timeout| idle >= timeout)
    }

    /// Prints what to type elsewhere.
    fn print_links(&mut self) -> anyhow::Result<()> {
        if self.port.is_none() {
            return Ok(());
        }
        for hash in std::mem::take(&mut self.waiting) {
            // Of equal files each tells that it is complete.
            let is_next = |file: &Shared| file.hash == hash && !file.is_printed;
            if let Some(index) = self.files.iter().position(is_next) {
                self.files[index].is_printed = true;
                let file = &self.files[index];
                let link = Link {
                    tracker: self.tracker.clone(),
                    hash,
                    name: file.name.clone(),
                };
                let link = link.to_string();
                let line = format!("cascade get {}\n", quoted(&link));
                let print = || print_bytes(line.as_bytes());
                self.view.shared(index, file, link, print)?;
                // Only from now on somebody can come.
                self.traffic.begin(Instant::now());
            }
        }
        Ok(())
    }

    fn wait(&self, signals: &Signals) -> io::Result<()> {
        let mut fds = vec![Some(signals.as_fd()), Some(self.told.as_fd())];
        fds.extend(self.copies.descriptors().map(Some));
        if wait_readable(&fds, Some(TICK))?[0] {
            signals.clear();
        }
        Ok(())
    }

    /// Reaps what ended; answers the status with which it is all over, if it is.
    fn reap(&mut self) -> anyhow::Result<Option<Status>> {
        for ended in child::ended() {
            let Ended { pid, how } = ended?;
            if self.tracker_role.take_if(|role| *role == pid).is_some() {
                anyhow::bail!("cannot go on sharing: the tracker ended: {how}");
            }
            if self.peer_role == pid {
                self.peer_role = Pid::from_raw(0);
                // It has said why.
                anyhow::ensure!(
                    how == How::Exited(1),
                    "cannot go on sharing: the peer ended: {how}"
                );
                return Ok(Some(Status::Failed));
            }
            let has_all = self.copies.ended(pid, how)?;
            self.copied(has_all);
        }
        Ok(None)
    }

    /// Ends the processes: the peer, which takes leave of the tracker, and then the tracker. A second signal, or the
    /// end of the grace, ends them at once.
    ///
    /// # Errors
    /// Where they cannot be waited for.
    pub fn stop(&mut self, signals: &Signals) -> io::Result<()> {
        self.copies.stop();
        let deadline = Instant::now() + GRACE;
        let peer = Some(self.peer_role).filter(|pid| pid.as_raw() > 0);
        for role in peer.into_iter().chain(self.tracker_role) {
            child::signal(role, Signal::SIGTERM);
            end(role, signals, deadline)?;
        }
        // What was sent last.
        self.hear()?;
        self.view.end(&self.traffic, self.copies.complete_hosts());
        Ok(())
    }
}

/// Waits for the end of a child.
fn end(role: Pid, signals: &Signals, deadline: Instant) -> io::Result<()> {
    loop {
        // A terminal that goes away says so twice: itself, and through its shell.
        let again = signals
            .take_any(&[Signal::SIGTERM, Signal::SIGINT])
            .is_some();
        if again || Instant::now() >= deadline {
            child::signal(role, Signal::SIGKILL);
        }
        let Ok(None) = child::try_wait(role) else {
            return Ok(());
        };
        if wait_readable(&[Some(signals.as_fd())], Some(TICK))?[0] {
            signals.clear();
        }
    }
}

/// A link as a shell takes it: the brackets of an IPv6 address are a pattern to it.
fn quoted(link: &str) -> String {
    if link.contains('[') {
        format!("'{link}'")
    } else {
        link.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_quoted_only_where_a_shell_would_take_it_for_a_pattern() {
        assert_eq!(quoted("cascade://h:1/x"), "cascade://h:1/x");
        assert_eq!(quoted("cascade://[::1]:1/x"), "'cascade://[::1]:1/x'");
    }
}
