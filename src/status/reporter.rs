//! The reporter: the unconfined process that starts those that report a tracker's status.
//!
//! It reads from the tracker only, which passes it the tables of its registry, and those of any successor. It ends with
//! the tracker, after it has removed the control socket; if it dies before, its [`keeper`] restarts it.

mod life;
mod shelf;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::Pid;

use super::doors::Doors;
use super::report::About;
use crate::confine::Confinement;
use crate::confine::keeper::{self, Helper};
use crate::logging::exit_code;
use crate::output::print_bytes;
use crate::server::Ledger;
use crate::service::tracker::Tell;
use crate::sys::passing;
use crate::sys::poll::wait_readable;
use crate::tracker::roll::Roll;
use shelf::Shelf;

/// How long to wait for the removal of the control socket.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is reported besides the registry.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Who runs.
    pub about: About,
    /// The server's ledger.
    pub ledger: Arc<Ledger>,
    /// How many peers are asked in a second how much they have: see [`super::survey`].
    pub survey: u32,
}

/// The tracker's handle on the reporter.
#[derive(Debug)]
pub struct Reporter {
    socket: Arc<OwnedFd>,
    keeper: Pid,
    /// Where there is HTTP.
    http: Vec<SocketAddr>,
}

impl Reporter {
    /// Starts the process and its keeper, where somebody is to be told. They should be older than the registry, whose
    /// memory they would inherit and keep for as long as they live, even if another one takes its place.
    ///
    /// # Errors
    /// Where they cannot be started.
    pub fn start(
        doors: Doors,
        subject: Subject,
        confinement: &Confinement,
    ) -> anyhow::Result<Option<Self>> {
        if doors.is_empty() {
            return Ok(None);
        }
        let (ours, theirs) = passing::pair()?;
        let shelf = Shelf::new()?;
        let http = doors.http().to_vec();
        let keep = doors.descriptors().into_iter().chain(shelf.descriptors());
        let keep = keep.map(|fd| fd.as_raw_fd()).collect();
        let doors = RefCell::new(doors);
        let helper = Helper {
            task: "starts those who tell the status".into(),
            socket: theirs,
            keep,
            life: Box::new(move |socket| {
                let doors = &mut doors.borrow_mut();
                let lived = life::live(doors, &subject, confinement, &shelf, socket);
                exit_code("the status server", lived.context("cannot tell the status"))
            }),
        };
        let begin = || {
            confinement.leave()?;
            confinement.gain_nothing()?;
            Ok(None)
        };
        Ok(Some(Self {
            socket: Arc::new(ours),
            keeper: keeper::start(vec![helper], begin)?,
            http,
        }))
    }

    /// The process without which nobody is told.
    pub fn keeper(&self) -> Pid {
        self.keeper
    }

    /// The descriptor through which it is told.
    pub fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// How it is told of a registry: the first one, and each successor.
    pub fn tell(&self) -> Tell {
        let socket = Arc::clone(&self.socket);
        Box::new(move |roll: &Roll| {
            if let Err(error) = roll.send(socket.as_fd()) {
                log::warn!(
                    "cannot tell of the registry, so the status is that of the one before: {error}"
                );
            }
        })
    }

    /// Says where the page is, for people and scripts.
    ///
    /// # Errors
    /// As [`print_bytes`].
    pub fn announce(&self) -> anyhow::Result<()> {
        self.http
            .iter()
            .try_for_each(|at| print_bytes(format!("status at http://{at}/\n").as_bytes()))
    }

    /// Stops it, and waits briefly until it has removed the control socket and is gone.
    pub fn stop(&self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        let _ = wait_readable(&[Some(self.socket.as_fd())], Some(PATIENCE));
        keeper::wait_for_end(self.keeper);
    }
}
