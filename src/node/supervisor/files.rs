//! Files that come and go while the node runs: when it is asked to, the supervisor reads the list of files again.

use std::collections::HashSet;
use std::time::{Instant, SystemTime};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{Item, Role, Stage, Supervisor, roles};
use crate::confine::reader::Reader;
use crate::download::progress::Figure;
use crate::hash::CascadeHash;
use crate::logging::{self, complain};
use crate::node::announcer::registered_bit;
use crate::node::files::{FileList, Wanted};
use crate::node::handover::Handover;
use crate::node::item::Opening;
use crate::node::open_file;
use crate::node::status::{NodeSource, publish};
use crate::service::blocks::Change;
use crate::status::rates::Rates;
use crate::status::service::Source;
use crate::status::words;
use crate::sys::child;
use crate::text::without_errno;

impl Supervisor<'_> {
    /// Has the list of files read again by this process, where there is one.
    pub fn read_list_with(&mut self, reader: Option<Reader<FileList>>) {
        self.reader = reader;
    }

    /// Reads the list of files again. Where it cannot be understood, nothing changes; a file of it that is none is named
    /// and left out, as at the start.
    pub(super) fn read_again(&mut self) {
        self.look_up_now();
        let read = || {
            let list = match &self.reader {
                Some(reader) => reader.read()?,
                None => self.list.clone(),
            };
            list.read(complain).map(|wanted| (list, wanted))
        };
        match read() {
            Ok((list, wanted)) => {
                self.tell_of_links(&list);
                self.list = list;
                self.follow(wanted);
                self.fetch_missing();
            }
            Err(error) => {
                let error = without_errno(&format!("{error:#}"));
                log::error!("{error}; the list of files stays as it was");
            }
        }
    }

    /// Stops what is not wanted any more, and takes note of what is new. A file that was given up is tried again, and
    /// one that was left alone because it was incomplete.
    fn follow(&mut self, wanted: Vec<Wanted>) {
        let keys: HashSet<_> = wanted.iter().map(|one| (&one.data, one.hash)).collect();
        let stays = |item: &Item| {
            let is_over = matches!(item.stage, Stage::GivenUp(_))
                || item.left_alone && !item.present.is_full();
            keys.contains(&(&item.named, item.hash)) && !is_over
        };
        let mut gone = Vec::new();
        for index in (0..self.items.len()).rev() {
            if !stays(&self.items[index]) {
                let item = self.items.remove(index);
                self.retell = true;
                self.display.remove(index);
                gone.push((item.hash, item.id, item.progress.get(Figure::Registered)));
                self.let_go(item);
            }
        }
        let there: HashSet<_> = self
            .items
            .iter()
            .map(|item| (&item.named, item.hash))
            .collect();
        let is_new = |one: &Wanted| !there.contains(&(&one.data, one.hash));
        self.arriving = wanted.into_iter().filter(is_new).collect();
        let (new, left) = (self.arriving.len(), gone.len());
        log::info!("the list of files was read again: {new} new, {left} gone");
        if !gone.is_empty() {
            let wanted: HashSet<_> = self.wanted_hashes().collect();
            self.forget(gone, &wanted);
        }
    }

    /// Whether a file is here.
    pub(super) fn has(&self, wanted: &Wanted) -> bool {
        let is_it = |item: &Item| item.named == wanted.data && item.hash == wanted.hash;
        self.items.iter().any(is_it)
    }

    /// Ends whatever works on a file that is not wanted any more; its descriptors are closed after that.
    fn let_go(&mut self, item: Item) {
        match item.stage {
            Stage::Verifying(pid) => {
                child::signal(pid, Signal::SIGKILL);
                self.leaving.push((pid, item));
            }
            Stage::Downloading(pid) => {
                child::signal(pid, Signal::SIGTERM);
                self.leaving.push((pid, item));
            }
            _ => item.discard_if_unwritten(),
        }
    }

    /// The process that worked on a file that is not wanted any more has ended. Answers whether this was one.
    pub(super) fn has_left(&mut self, pid: Pid) -> bool {
        let Some(index) = self.leaving.iter().position(|(other, _)| *other == pid) else {
            return false;
        };
        self.leaving.swap_remove(index).1.discard_if_unwritten();
        true
    }

    /// The files that are here, and those that are about to come.
    fn wanted_hashes(&self) -> impl Iterator<Item = CascadeHash> {
        let here = self.items.iter().map(|item| item.hash);
        here.chain(self.arriving.iter().map(|one| one.hash))
    }

    /// Sees to it that nobody is told any more that these files are here, but for those that are wanted in another
    /// place, or once more.
    fn forget(&mut self, gone: Vec<(CascadeHash, u64, u64)>, wanted: &HashSet<CascadeHash>) {
        for (number, (tracker, role)) in self.announcers.iter_mut().enumerate() {
            stop_announcer(role);
            let unwanted: Vec<CascadeHash> = gone
                .iter()
                .filter(|(hash, _, registered)| {
                    registered & registered_bit(number) != 0 && !wanted.contains(hash)
                })
                .map(|(hash, _, _)| *hash)
                .collect();
            // It ends by itself, soon. A tracker that was not told forgets us, later.
            let confinement = &self.settings.confinement;
            let _ = roles::start_farewell(tracker, &self.place, &unwanted, confinement);
        }
        let gone = gone.into_iter().map(|(hash, id, _)| (hash, id));
        self.forgotten.extend(gone);
    }

    /// Opens the files that are new, once those that went have let go of theirs: a new file may have an old one's place.
    pub(super) fn open_arriving(&mut self) {
        if !self.leaving.is_empty() {
            return;
        }
        let how = Opening {
            tracked: !self.announcers.is_empty(),
            late: true,
            follow_links: self.settings.follows_links(),
        };
        for Wanted { cascade, data, .. } in std::mem::take(&mut self.arriving) {
            match open_file(&cascade, &data, how, &self.items) {
                Ok(None) => {}
                Ok(Some(item)) => {
                    self.tell_start(&item);
                    self.items.push(item);
                    self.retell = true;
                    self.display.add();
                }
                Err(error) => complain(&error),
            }
        }
    }

    /// Lets the listener serve what came, once it is known what there is of it, and no longer what went; then tells the
    /// trackers.
    pub(super) fn hand_over(&mut self) {
        if let Role::Running(listener) = self.listener
            && self.send_changes()
        {
            child::signal(listener, Signal::SIGHUP);
        }
        self.announce_again();
    }

    /// Sends what the listener does not know. Answers whether there was something. What finds no room is sent later.
    fn send_changes(&mut self) -> bool {
        let mut sent = false;
        while let Some((hash, id)) = self.forgotten.pop() {
            if !send(&self.handover, &Change::Forget(hash, id)) {
                self.forgotten.push((hash, id));
                return sent;
            }
            sent = true;
        }
        for item in &mut self.items {
            let unknown = matches!(
                item.stage,
                Stage::Unverified | Stage::Verifying(_) | Stage::GivenUp(_)
            );
            if item.handed_over || unknown {
                continue;
            }
            if !send(&self.handover, &Change::Serve(item.served())) {
                return sent;
            }
            item.handed_over = true;
            sent = true;
        }
        sent
    }

    /// Starts the announcers anew when all that came is known: whoever is sent here must find it.
    fn announce_again(&mut self) {
        let unknown = |item: &Item| matches!(item.stage, Stage::Unverified | Stage::Verifying(_));
        let mut unannounced = self.items.iter().filter(|item| !item.announced).peekable();
        if unannounced.peek().is_some() && !unannounced.any(unknown) {
            self.items.iter_mut().for_each(|item| item.announced = true);
            for (_, role) in &mut self.announcers {
                stop_announcer(role);
            }
        }
    }

    /// Logs how the node is, for which a signal asked.
    pub(super) fn log_status(&self) {
        self.items.iter().for_each(publish);
        let source = NodeSource::new(&self.about, &self.ledger, &self.items, &self.list);
        let mut lines = words::block(&source.status(&Rates::default(), SystemTime::now()));
        lines.push(format!("children: {}", self.children().len()));
        logging::status(&lines);
    }
}

/// Sends a change; answers whether that worked.
fn send(handover: &Handover, change: &Change) -> bool {
    let sent = handover.send(change);
    if let Err(error) = &sent
        && error.kind() != std::io::ErrorKind::WouldBlock
    {
        log::warn!("cannot tell the listener of a file: {error}; trying again");
    }
    sent.is_ok()
}

/// Ends an announcer, which is to be started anew.
fn stop_announcer(role: &mut Role) {
    if let Role::Running(pid) = *role {
        // It may be waiting for an answer to what is wrong now.
        child::kill(pid);
    }
    *role = Role::Due(Instant::now());
}
