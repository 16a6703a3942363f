//! What is made known of results: to people, to programs, to the user's command, and to the other peers.

use std::time::{Duration, Instant};

use super::{Stage, Supervisor};
use crate::cli::Reporting;
use crate::download::progress::Figure;
use crate::events::Event;
use crate::exit::Status;
use crate::node::command;
use crate::node::display::{summary, waste};
use crate::node::item::Item;
use crate::node::told::Told;
use crate::output::{print_bytes, sum_line};
use crate::text::{count, size_of};

/// How long a node that has everything stays for those who looked at what it had so shortly before.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// A download that took less may be over before anybody has looked.
const QUICK: Duration = Duration::from_secs(2);

impl Supervisor<'_> {
    pub(super) fn completed(&mut self, index: usize) {
        self.items[index].stage = Stage::Complete;
        self.items[index].freeze();
        self.display.update(&self.items);
        let item = &self.items[index];
        let Reporting { json, quiet, .. } = self.settings.reporting;
        if !json && !quiet {
            crate::logging::tell(&summary(item));
        }
        log::debug!("{}", waste(item));
        self.settings.events.emit(|| completion(item));
        self.settings.tell(Told::Complete(item.hash));
        if !self.settings.daemon && !json && !quiet {
            // A closed pipe is no error: its reader has seen enough, and the file is there.
            let line = sum_line(&item.data_hash, item.data.path());
            if let Err(error) = self.display.aside(|| print_bytes(&line)) {
                crate::logging::complain(&error);
                self.status = self.status.max(Status::Failed);
            }
        }
        self.execute(index);
    }

    /// Runs the user's command. A daemon that begins with complete files has done nothing to them.
    fn execute(&mut self, index: usize) {
        let item = &self.items[index];
        let Reporting { exec, json, .. } = &self.settings.reporting;
        let Some(command) = exec else { return };
        if self.settings.daemon && item.turn.number == 0 {
            return;
        }
        match command::start(command, item, *json) {
            Ok(pid) => {
                let command = (pid, item.name.clone(), item.subject());
                self.commands.push(command);
            }
            Err(error) => {
                let running = format!("cannot run the command for {}", item.name);
                crate::logging::complain(&anyhow::Error::new(error).context(running));
                self.status = self.status.max(Status::Failed);
            }
        }
    }

    pub(super) fn tell_start(&self, item: &Item) {
        self.settings.events.emit(|| Event::Started {
            file: item.subject(),
            length: item.geometry.length(),
            block_size: item.geometry.block_size(),
            blocks: item.geometry.blocks(),
        });
    }

    pub(super) fn give_up(&mut self, index: usize, status: Status) {
        self.settings.events.emit(|| Event::GivenUp {
            file: self.items[index].subject(),
            status: status as u8,
        });
        self.items[index].stage = Stage::GivenUp(status);
        self.items[index].progress.set(Figure::GivenUp, 1);
        self.items[index].discard_if_unwritten();
        self.status = self.status.max(status);
    }

    /// Tells whoever waits for the download, and for nothing else.
    fn say(&self, text: &str) {
        let Reporting { json, quiet, .. } = self.settings.reporting;
        if !self.settings.daemon && !json && !quiet {
            crate::logging::tell(text);
        }
    }

    /// Everything is there, and is served for a while.
    pub(super) fn say_seeding(&self) {
        let time = humantime::format_duration(self.settings.seed_for);
        self.say(&format!(
            "download complete; serving for {time} (Ctrl-C ends it)"
        ));
    }

    /// Others are still being served, after a signal.
    pub(super) fn say_waiting(&self) {
        let grace = humantime::format_duration(self.limits.grace);
        self.say(&format!(
            "waiting up to {grace} for transfers to others (Ctrl-C ends them)"
        ));
    }

    /// What a signal left of the downloads.
    pub(super) fn say_kept(&self) {
        let is_over = |item: &&Item| matches!(item.stage, Stage::Complete | Stage::GivenUp(_));
        let (over, open): (Vec<&Item>, Vec<&Item>) = self.items.iter().partition(is_over);
        self.say(&kept(&over, &open));
    }

    /// The worst that happened. A daemon whose events cannot be written has others to serve; a download was to tell.
    pub(super) fn outcome(&self) -> Status {
        if self.settings.events.were_lost() && !self.settings.daemon {
            self.status.max(Status::Failed)
        } else {
            self.status
        }
    }

    /// How long the others are given to see that this node has everything: those who watched the files grow (they
    /// look twice a second), and those who had no time to. Where all came from one peer, that one knows; and those who
    /// have everything themselves do not mind.
    pub(super) fn farewell(&self, finished: Instant) -> Duration {
        let recently = |at: Instant| finished.saturating_duration_since(at) < LAST_LOOK;
        let watched = |item: &Item| item.watched.1.is_some_and(recently);
        let unseen = |item: &Item| {
            let figure = |figure| item.progress.get(figure);
            let (fetched, length) = (figure(Figure::Fetched), item.geometry.length());
            let quick = figure(Figure::Milliseconds) < QUICK.as_millis() as u64;
            let some_lack = figure(Figure::IncompletePeers) > 0;
            fetched > 0
                && quick
                && some_lack
                && (figure(Figure::Contributors) > 1 || fetched < length)
        };
        let tracked = !self.announcers.is_empty();
        let some = |item: &Item| watched(item) || tracked && unseen(item);
        if self.items.iter().any(some) {
            LAST_LOOK
        } else {
            Duration::ZERO
        }
    }
}

/// What is kept of files that were not finished.
fn kept(over: &[&Item], open: &[&Item]) -> String {
    let sum = |of: fn(&Item) -> u64| {
        open.iter()
            .map(|item| of(item))
            .fold(0, u64::saturating_add)
    };
    let (have, length) = (
        sum(Item::verified_bytes),
        sum(|item| item.geometry.length()),
    );
    let complete = over
        .iter()
        .filter(|item| item.stage == Stage::Complete)
        .count();
    let of_others = match complete {
        0 => String::new(),
        _ => format!("{} complete, of the rest ", count(complete, "file")),
    };
    let is_unknown = |item: &&Item| matches!(item.stage, Stage::Unverified | Stage::Verifying(_));
    if open.is_empty() {
        "stopped: the download is complete".into()
    } else if open.iter().any(is_unknown) {
        "stopped while verifying: what is there is kept; the same command goes on".into()
    } else if have == 0 {
        format!("stopped: {of_others}nothing has arrived yet")
    } else {
        let have = size_of(have, length, " of ");
        format!("stopped: {of_others}{have} are kept; the same command goes on")
    }
}

fn completion(item: &Item) -> Event {
    Event::Complete {
        file: item.subject(),
        received: item.progress.get(Figure::Fetched),
        seconds: item.progress.get(Figure::Milliseconds) as f64 / 1000.0,
        peers: item.progress.get(Figure::Contributors),
    }
}
