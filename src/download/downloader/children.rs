//! The downloader's children: workers, and the process that hashes the whole file.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use log::Level;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Pid, pipe2};

use super::{Bitmap, Downloader, Event, Handle, WHOLE_ATTEMPTS, WorkerId, WorkerOrder};
use crate::confine::Role;
use crate::download::{whole, worker};
use crate::logging;
use crate::sys::child::{self, Ended, How};
use crate::sys::fork;
use crate::text::without_errno;

/// How often a worker connects to a peer that has never answered: some close the connection where they are asked for a
/// map, and are asked for a block.
const CONNECTS_TO_STRANGER: u32 = 2;

impl Downloader<'_> {
    pub(super) fn hire(&mut self, id: WorkerId, peer: SocketAddr) -> io::Result<()> {
        let (read, orders, map) = match self.prepare_worker() {
            Ok(prepared) => prepared,
            Err(error) => {
                self.not_started(id, peer, &error);
                return Ok(());
            }
        };
        let Some(data) = self.task.data.writing() else {
            return Err(io::Error::other("the data file is not open for writing"));
        };
        let addresses = self.task.peers.addresses_of(peer);
        let assignment = worker::Assignment {
            id,
            addresses: &addresses,
            hash: self.task.hash,
            cascade: self.task.cascade,
            data,
            present: self.task.present,
            map: &map,
            progress: self.task.progress,
            limit: self.task.limit,
            reports: &self.sender,
            orders: &read,
            connects: self.connects(peer),
        };
        let keep = [read.as_fd(), self.sender.as_fd(), data.as_fd()];
        let role = Role::Worker { port: peer.port() };
        let forked = fork::spawn_leaf(&keep, || self.confined(role, || worker::run(&assignment)));
        match forked {
            Ok(pid) => {
                let line = format_args!("worker {id} pid {pid} for {peer}");
                logging::about(peer, Level::Debug, line);
                self.workers.insert(
                    id,
                    Handle {
                        pid,
                        peer,
                        orders,
                        unsent: Vec::new(),
                        map,
                    },
                );
            }
            Err(error) => self.not_started(id, peer, &error),
        }
        Ok(())
    }

    /// The pipe for a worker's orders, both ends, and the memory for its peer's map.
    fn prepare_worker(&self) -> io::Result<(File, File, Arc<Bitmap>)> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let map = Arc::new(Bitmap::new(self.task.present.blocks())?);
        Ok((File::from(read), File::from(write), map))
    }

    /// What a worker needs cannot be had now.
    fn not_started(&mut self, id: WorkerId, peer: SocketAddr, error: &io::Error) {
        let error = without_errno(&error.to_string());
        self.shortage
            .met(format_args!("cannot start a worker for {peer}: {error}"));
        self.plan.handle(self.now(), Event::NotStarted(id));
    }

    /// How often a worker may connect to a peer before that has answered.
    fn connects(&self, peer: SocketAddr) -> u32 {
        match self.task.peers.contains(peer) || self.task.admission.has_answered(peer) {
            true => u32::MAX,
            false => CONNECTS_TO_STRANGER,
        }
    }

    /// The life of a child, which is confined first, and only looks at what is present.
    fn confined(&self, role: Role<'_>, life: impl FnOnce() -> u8) -> u8 {
        let protect = || -> io::Result<()> {
            self.task.present.protect()?;
            self.task.admission.protect()
        };
        let protected = protect().map_err(anyhow::Error::from);
        match protected.and_then(|()| self.task.confinement.enter(role)) {
            Ok(()) => life(),
            Err(error) => {
                crate::logging::complain(&error);
                1
            }
        }
    }

    /// Adds an order to those that [`Self::send_orders`] sends.
    pub(super) fn order(&mut self, id: WorkerId, order: WorkerOrder) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.unsent.extend_from_slice(&order.encode());
        }
    }

    /// Sends each worker its orders, all at once: they wake it once.
    pub(super) fn send_orders(&mut self) {
        for worker in self
            .workers
            .values_mut()
            .filter(|worker| !worker.unsent.is_empty())
        {
            // A worker that is gone is noticed when it is reaped; its orders are given back then.
            let _ = worker.orders.write_all(&worker.unsent);
            worker.unsent.clear();
        }
    }

    /// Ends a worker, and returns only when it is dead: its blocks may be given to others at once.
    pub(super) fn dismiss(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.remove(&id) {
            child::kill(worker.pid);
            let now = self.now();
            self.plan.handle(now, Event::Died(id));
        }
    }

    pub(super) fn dismiss_workers(&mut self) {
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        ids.into_iter().for_each(|id| self.dismiss(id));
    }

    pub(super) fn dismiss_all(&mut self) {
        self.dismiss_workers();
        if let Some(pid) = self.whole.pid.take() {
            child::kill(pid);
        }
    }

    pub(super) fn hash_whole_file(&mut self) -> io::Result<()> {
        if self.whole.hash.is_some() {
            return Ok(());
        }
        let (task, data) = (self.task, self.task.data.reading());
        let wake = File::from(self.whole.wake.as_fd().try_clone_to_owned()?);
        let keep: [BorrowedFd<'_>; 3] = [data.as_fd(), wake.as_fd(), self.sender.as_fd()];
        let whole = whole::Whole {
            data,
            geometry: task.cascade.geometry(),
            present: task.present,
            progress: task.progress,
        };
        let hash = || whole::run(&whole, &wake, &self.sender);
        let body = || self.confined(Role::Hasher, hash);
        self.whole.pid = Some(fork::spawn_leaf(&keep, body)?);
        self.whole.attempts += 1;
        Ok(())
    }

    /// Reaps the children that ended. What a child reported before its end was applied already, or is now.
    pub(super) fn reap(&mut self) -> anyhow::Result<()> {
        for ended in child::ended() {
            let Ended { pid, how } = ended?;
            self.apply_reports()?;
            if self.whole.pid == Some(pid) {
                self.hasher_ended(how)?;
            } else {
                self.worker_ended(pid, how);
            }
        }
        Ok(())
    }

    /// The process that hashes the whole file ended: it is started again, unless it has told the hash.
    fn hasher_ended(&mut self, how: How) -> anyhow::Result<()> {
        self.whole.pid = None;
        if self.whole.hash.is_none() {
            log::warn!("the process that hashes the whole file ended: {how}");
            anyhow::ensure!(
                self.whole.attempts < WHOLE_ATTEMPTS,
                "cannot hash the whole file: {how}"
            );
            self.hash_whole_file()?;
        }
        Ok(())
    }

    fn worker_ended(&mut self, pid: Pid, how: How) {
        let mut workers = self.workers.iter();
        let id = workers.find_map(|(id, worker)| (worker.pid == pid).then_some(*id));
        if let Some(id) = id {
            log::debug!("worker {id} pid {pid} ended: {how}");
            self.workers.remove(&id);
            self.plan.handle(self.now(), Event::Died(id));
        }
    }
}
