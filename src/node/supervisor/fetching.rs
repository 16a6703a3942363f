//! Links that the list of files has gained, and those whose cascade files nobody had at the start: a process searches for
//! them beside everything else, and ends as soon as one is there.

use std::time::Instant;

use super::{REST, Role, Supervisor, roles};
use crate::node::TrackerAddress;
use crate::node::files::{FileList, FileSpec};
use crate::sys::child::{self, How};
use crate::text::{escape_path, without_errno};

/// With this exit status it says that a cascade file is there that was not.
pub const FOUND: u8 = 0;
/// With this one, that there is nothing more to search for.
pub const NOTHING: u8 = 1;

impl Supervisor<'_> {
    /// Searches for the cascade files of the list that are not there, from now on.
    pub fn fetch_missing(&mut self) {
        if let Role::Running(pid) = self.fetcher {
            child::kill(pid);
        }
        self.fetcher = Role::Due(Instant::now());
    }

    pub(super) fn start_fetcher(&mut self) {
        if !self.fetcher.is_due() {
            return;
        }
        let missing = self
            .list
            .named
            .iter()
            .filter(|file| file.is_to_be_fetched());
        let missing: Vec<FileSpec> = missing.cloned().collect();
        self.fetcher = match self.has_nobody_to_ask() || missing.is_empty() {
            true => Role::None,
            false => {
                let trackers: Vec<TrackerAddress> = self.trackers().cloned().collect();
                let (settings, peers) = (self.settings, &self.peers);
                let admission = &self.admission;
                Role::started(
                    "the search for cascade files",
                    roles::start_fetcher(&missing, settings, &trackers, peers, admission),
                )
            }
        };
    }

    pub(super) fn fetcher_ended(&mut self, how: How) {
        match how.status().and_then(|status| u8::try_from(status).ok()) {
            Some(FOUND) => {
                self.fetcher = Role::Due(Instant::now());
                self.welcome_fetched();
            }
            Some(NOTHING) => self.fetcher = Role::None,
            _ => {
                log::warn!("the search for cascade files ended: {how}; it is started again");
                self.fetcher = Role::Due(Instant::now() + REST);
            }
        }
    }

    /// Takes note of the files whose cascade files have come.
    fn welcome_fetched(&mut self) {
        match self.list.read(|_| {}) {
            Ok(wanted) => {
                let before = self.arriving.len();
                let is_new = |one: &&_| !self.has(one) && !self.arriving.contains(one);
                let new: Vec<_> = wanted.iter().filter(is_new).cloned().collect();
                self.arriving.extend(new);
                let new = self.arriving.len() - before;
                log::info!("cascade files were fetched: {new} new");
            }
            Err(error) => {
                let error = without_errno(&format!("{error:#}"));
                log::error!("{error}; the list of files stays as it was");
            }
        }
    }

    /// Says what becomes of the links that the list has gained.
    pub(super) fn tell_of_links(&self, list: &FileList) {
        let is_new = |file: &&FileSpec| !self.list.named.contains(file);
        let new = list.named.iter().filter(is_new);
        for file in new.filter(|file| file.is_to_be_fetched()) {
            let name = escape_path(&file.cascade);
            match self.new_tracker(file) {
                None => log::info!("{name} is not there; it is fetched"),
                Some(tracker) if self.has_nobody_to_ask() => log::warn!(
                    "{name} is not there; to fetch it from tracker {tracker}, which is new, takes a restart"
                ),
                Some(tracker) => log::warn!(
                    "{name} is not there; it is searched for where the others are: to ask tracker {tracker}, which is new, takes a restart"
                ),
            }
        }
    }

    /// The tracker of a link, where that is not asked: its name would have to be looked up.
    fn new_tracker<'a>(&self, file: &'a FileSpec) -> Option<&'a str> {
        let tracker = file.tracker.as_deref();
        tracker.filter(|name| self.trackers().all(|known| known.name != **name))
    }

    fn trackers(&self) -> impl Iterator<Item = &TrackerAddress> {
        self.announcers.iter().map(|(tracker, _)| tracker)
    }

    fn has_nobody_to_ask(&self) -> bool {
        self.announcers.is_empty() && self.peers.is_empty()
    }
}
