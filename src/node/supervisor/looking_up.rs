//! Names that mean something else than before: whoever asked at the old addresses is started again.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Role, Stage, Supervisor};
use crate::node::item::Item;
use crate::node::names::{Found, Names};
use crate::node::place::of_tracker;
use crate::sys::child;

/// A download that received nothing for so long may have peers that moved.
const SILENT: Duration = Duration::from_secs(3);

impl Supervisor<'_> {
    /// Has names looked up again by this process.
    pub fn look_up_with(&mut self, names: Option<Names>) {
        self.names = names;
    }

    /// Has names looked up at once.
    pub(super) fn look_up_now(&self) {
        if let Some(names) = &self.names {
            names.look_up_now();
        }
    }

    /// Takes note of what names mean now, and has them looked up where nothing is received.
    pub(super) fn follow_names(&mut self) {
        let Some(names) = &self.names else { return };
        if self.items.iter().any(is_silent) {
            names.look_up_soon();
        }
        while let Some(found) = self.names.as_ref().and_then(Names::news) {
            self.apply_names(found);
        }
        self.restart_outdated();
    }

    fn apply_names(&mut self, found: Found) {
        let sources = &self.settings.sources;
        let (of_trackers, of_peers) = found.split_at(sources.tracker.len().min(found.len()));
        for ((tracker, role), found) in self.announcers.iter_mut().zip(of_trackers) {
            let addresses = of_tracker(found.clone().unwrap_or_default());
            let is_same = addresses.iter().all(|one| tracker.addresses.contains(one))
                && addresses.len() == tracker.addresses.len();
            if is_same || addresses.is_empty() {
                continue;
            }
            log::info!("tracker {} has other addresses now", tracker.name);
            tracker.addresses = addresses;
            if let Role::Running(pid) = *role {
                child::kill(pid);
            }
            *role = Role::Due(Instant::now());
        }
        let before = self.peers.clone();
        for (name, found) in sources.peer.iter().zip(of_peers) {
            if let Some(addresses) = found {
                self.peers.renew(name, addresses);
            }
        }
        if self.peers != before {
            log::info!("peers that were named have other addresses now");
            let running = self.items.iter().filter_map(|item| match item.stage {
                Stage::Downloading(pid) => Some(pid),
                _ => None,
            });
            self.outdated = running.collect();
        }
        if let Role::Running(pid) = self.fetcher {
            child::kill(pid);
            self.fetcher = Role::Due(Instant::now());
        }
    }

    /// Starts downloads again that know the old addresses only, once those are of no use any more.
    fn restart_outdated(&mut self) {
        for item in &mut self.items {
            let Stage::Downloading(pid) = item.stage else {
                continue;
            };
            if self.outdated.contains(&pid) && is_silent(item) {
                self.outdated.retain(|other| *other != pid);
                item.turn.over = true;
                child::signal(pid, Signal::SIGTERM);
            }
        }
    }
}

fn is_silent(item: &Item) -> bool {
    let downloads = matches!(item.stage, Stage::Downloading(_));
    downloads && item.turn.since.elapsed() >= SILENT && item.turn.arrived.elapsed() >= SILENT
}
