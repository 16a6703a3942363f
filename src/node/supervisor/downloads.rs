//! Which files are downloaded now, and with how many workers.
//!
//! Every unfinished file wants a downloader, and every downloader wants workers. There is room for so many of both,
//! and a file that nobody has must not keep the others from theirs: so they take turns.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{REST, Stage, Supervisor, roles};
use crate::download::progress::Figure;
use crate::node::item::{Item, Turn};
use crate::sys::child;

/// Files that have a downloader at the same time.
const AT_ONCE: usize = 16;
/// A downloader that received nothing for so long makes room for another file, and a worker for another download.
const FRUITLESS: Duration = Duration::from_secs(15);

impl Supervisor<'_> {
    /// Ends a downloader that receives nothing, where another file waits for its turn.
    pub(super) fn take_turns(&mut self) {
        let waiting = self
            .items
            .iter()
            .any(|item| item.stage == Stage::Unfinished);
        for item in &mut self.items {
            let Stage::Downloading(pid) = item.stage else {
                continue;
            };
            let received = item.progress.get(Figure::Received);
            if received != item.turn.received {
                let now = Instant::now();
                item.turn = Turn {
                    received,
                    since: now,
                    arrived: now,
                    ..item.turn
                };
            }
            if waiting && item.turn.since.elapsed() >= FRUITLESS && !item.turn.over {
                item.turn.over = true;
                child::signal(pid, Signal::SIGTERM);
            }
        }
    }

    /// Starts the downloads that are due, those first that waited longest.
    pub(super) fn start_downloaders(&mut self) {
        loop {
            let running = self
                .items
                .iter()
                .filter(|item| matches!(item.stage, Stage::Downloading(_)))
                .count();
            let knows_whom_to_ask = !self.peers.is_empty();
            let share = (self.workers / (running as u64 + 1)).max(1);
            let due = self
                .items
                .iter_mut()
                .filter(|item| is_due(item))
                .min_by_key(|item| item.turn.number);
            let Some(item) = due.filter(|_| running < AT_ONCE) else {
                return;
            };
            let received = item.progress.get(Figure::Received);
            self.turns += 1;
            item.turn = Turn {
                number: self.turns,
                received,
                since: Instant::now(),
                over: false,
                ..item.turn
            };
            if knows_whom_to_ask {
                // It may begin at once: its share is settled when it has said for itself that it wants workers.
                item.progress.set(Figure::Wanted, 1);
                item.progress.set(Figure::Workers, share);
            }
            item.stage = match roles::start_downloader(
                item,
                &self.peers,
                self.settings,
                self.download.as_deref(),
                &self.admission,
            ) {
                Ok(pid) => Stage::Downloading(pid),
                Err(error) => {
                    log::warn!("cannot start the download of {}: {error}", item.name);
                    Stage::Resting(Instant::now() + REST)
                }
            };
        }
    }

    /// Divides the workers among the downloads that know whom to ask. Where there are fewer workers than those, they
    /// take turns.
    pub(super) fn share_out_workers(&self) {
        let downloading = self
            .items
            .iter()
            .filter(|item| matches!(item.stage, Stage::Downloading(_)));
        let (wanting, idle): (Vec<&Item>, Vec<&Item>) =
            downloading.partition(|item| item.progress.get(Figure::Wanted) > 0);
        // One who knows nobody yet may begin at once when that changes.
        let share = self.workers / (wanting.len() + idle.len()).max(1) as u64;
        idle.iter()
            .for_each(|item| item.progress.set(Figure::Workers, share.max(1)));
        let all = wanting.len() as u64;
        if all == 0 {
            return;
        }
        let first = self.started.elapsed().as_secs() / FRUITLESS.as_secs() % all;
        for (index, item) in wanting.into_iter().enumerate() {
            let place = (index as u64 + all - first) % all;
            item.progress.set(
                Figure::Workers,
                self.workers / all + u64::from(place < self.workers % all),
            );
        }
    }
}

fn is_due(item: &Item) -> bool {
    match item.stage {
        Stage::Unfinished => true,
        Stage::Resting(until) => until <= Instant::now(),
        _ => false,
    }
}
