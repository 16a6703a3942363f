//! What the downloader makes of the reports of its children.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use log::Level;
use nix::unistd::Pid;

use super::{Downloader, Event, Figure, WorkerId};
use crate::download::plan::Failure;
use crate::download::reason::{Reason, ReasonKind};
use crate::download::report::{Report, WorkerReport};
use crate::events::{self, Subject};
use crate::logging;
use crate::sys::letters::Received;

impl Downloader<'_> {
    pub(super) fn apply_reports(&mut self) -> anyhow::Result<()> {
        loop {
            match self.receiver.receive()? {
                Received::Record(pid, report) if !self.may_report(pid, &report) => {
                    log::warn!("a report from pid {pid}, which has none to make, was ignored");
                }
                Received::Record(_, Report::Worker(id, report)) => self.apply(id, report),
                Received::Record(_, Report::WholeFile(hash)) => self.whole.hash = Some(hash),
                Received::Record(_, Report::WholeFileFailed(errno)) => {
                    let error = io::Error::from_raw_os_error(errno);
                    anyhow::bail!(
                        "cannot read {}: {error}",
                        crate::text::escape_path(self.task.data.path())
                    );
                }
                Received::Garbage(pid) => {
                    log::warn!("a report of pid {pid} that is none was ignored");
                }
                Received::Empty => return Ok(()),
                // This process has a sending end itself.
                Received::Closed => anyhow::bail!("a worker has shut down the socket for reports"),
            }
        }
    }

    /// Whether it is for this child to say that: a worker speaks for itself, and of the whole file only the process that
    /// hashes it.
    fn may_report(&self, pid: Pid, report: &Report) -> bool {
        match report {
            // Of one that was dismissed there may still be letters; they are for nobody.
            Report::Worker(id, _) => self.workers.get(id).is_none_or(|worker| worker.pid == pid),
            Report::WholeFile(_) | Report::WholeFileFailed(_) => self.whole.pid == Some(pid),
        }
    }

    /// Applies a worker's report, as far as it may make it.
    fn apply(&mut self, id: WorkerId, report: WorkerReport) {
        let Some(worker) = self.workers.get(&id) else {
            return;
        };
        let (now, peer, map) = (self.now(), worker.peer, Arc::clone(&worker.map));
        if matches!(
            report,
            WorkerReport::Fetched(_) | WorkerReport::Absent(_) | WorkerReport::Map(_)
        ) && self.said.answered(peer)
        {
            logging::about(peer, Level::Info, format_args!("{peer} answers now"));
        }
        match report {
            WorkerReport::Fetched(blocks) => {
                self.shortage.is_over();
                blocks
                    .into_iter()
                    .for_each(|block| self.fetched(now, id, block));
                self.advance_prefix();
            }
            WorkerReport::Absent(block) => self.plan.handle(now, Event::Absent(id, block)),
            WorkerReport::Skipped(block) => self.plan.handle(now, Event::Skipped(id, block)),
            WorkerReport::Map(block) => self
                .plan
                .handle(now, Event::Map(id, block, &map.to_bytes())),
            WorkerReport::NoMap => self.plan.handle(now, Event::NoMap(id)),
            WorkerReport::Began => self.plan.handle(now, Event::Began(id)),
            WorkerReport::Path(path) => self.plan.handle(now, Event::Path(id, path)),
            WorkerReport::Failed(failure, reason) => {
                self.complain(peer, failure, reason);
                self.plan.handle(now, Event::Failed(id, failure));
            }
        }
    }

    fn fetched(&mut self, now: Duration, id: WorkerId, block: u32) {
        if !self.plan.expects(id, block) {
            log::warn!("worker {id} reported a block that it was not asked for");
            return;
        }
        if !self.task.present.get(block) {
            let length = self.task.cascade.geometry().block_length(block);
            self.task.progress.add(Figure::Fetched, length);
        }
        self.task.present.set(block);
        self.plan.handle(now, Event::Fetched(id, block));
    }

    fn complain(&mut self, peer: SocketAddr, failure: Failure, reason: Reason) {
        self.task.events.emit(|| events::Event::Failure {
            file: Subject::new(self.task.data.path(), &self.task.hash),
            peer,
            block: reason.block(),
            kind: failure.keyword(reason.kind),
            reason: reason.to_string(),
        });
        let say = |level, line: std::fmt::Arguments<'_>| logging::about(peer, level, line);
        match failure {
            Failure::Ours if reason.kind == ReasonKind::CannotWrite => {
                let path = crate::text::escape_path(self.task.data.path());
                self.error = Some(anyhow::anyhow!("cannot complete {path}: {reason}"));
            }
            Failure::Lied => {
                self.said.is_news(peer, reason);
                say(
                    Level::Warn,
                    format_args!("{peer} is ignored for this download: {reason}"),
                );
            }
            Failure::Shortage => self
                .shortage
                .met(format_args!("a worker for {peer} failed: {reason}")),
            Failure::Ours => say(
                Level::Warn,
                format_args!("a worker for {peer} failed: {reason}"),
            ),
            // Trackers name many that are gone; whom the user named should be there.
            Failure::Unreachable if !self.task.peers.contains(peer) => {
                self.said.is_news(peer, reason);
                say(Level::Debug, format_args!("cannot reach {peer}: {reason}"));
            }
            // It is tried again and again.
            Failure::Unreachable | Failure::Silent | Failure::UnknownHash
                if !self.said.is_news(peer, reason) => {}
            Failure::Unreachable => say(
                Level::Info,
                format_args!(
                    "cannot reach {}: {reason}; {} (trying again)",
                    self.task.peers.describe(peer),
                    match reason.is_timeout() {
                        true => "is a firewall in the way?",
                        false => "is 'cascade peer' running there?",
                    }
                ),
            ),
            Failure::Silent | Failure::UnknownHash => say(
                Level::Info,
                format_args!("cannot download from {peer}: {reason}"),
            ),
        }
    }
}
