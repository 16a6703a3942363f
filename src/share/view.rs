//! What is shown of a share: a row on a terminal, lines elsewhere, events to a program.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Shared;
use super::traffic::Traffic;
use crate::display::{Board, Job, Phase, REDRAW};
use crate::events::{Events, Subject};
use crate::logging;
use crate::text::{count, size};

/// How often an event tells what is sent.
const EVENT_EVERY: Duration = Duration::from_secs(1);

/// Something that happened, for programs. Names and meanings are documented, and stay; others may be added.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    /// A file is served.
    Shared {
        #[serde(flatten)]
        file: Subject,
        length: u64,
        link: String,
    },
    /// What is sent has changed.
    Sending {
        connected: usize,
        complete: usize,
        sent: u64,
        rate: u64,
    },
    /// A host has all of a file.
    Copy {
        #[serde(flatten)]
        file: Subject,
        host: IpAddr,
        copies: usize,
    },
    /// It is over.
    Ended {
        seconds: f64,
        sent: u64,
        hosts: usize,
        complete: usize,
    },
}

/// How far the verification of a file is.
#[derive(Debug)]
struct Checked {
    name: String,
    length: u64,
    bytes: u64,
    done: bool,
}

/// What is shown.
#[derive(Debug)]
pub struct View {
    /// Nothing where events are printed.
    board: Option<Board>,
    events: Events,
    files: Vec<Checked>,
    drawn: Option<Instant>,
    told: Option<(Instant, u64)>,
}

impl View {
    /// Of these files; the log goes through it from now on, of the children that are forked later, too.
    pub fn new(files: &[Shared], events: Events, json: bool) -> Self {
        let checked = |file: &Shared| Checked {
            name: crate::text::escape_path(&file.data),
            length: file.geometry.length(),
            bytes: 0,
            done: file.hashed.is_some(),
        };
        Self {
            board: (!json).then(Board::new),
            events,
            files: files.iter().map(checked).collect(),
            drawn: None,
            told: None,
        }
    }

    /// So many bytes of this file were verified.
    pub fn checked(&mut self, index: usize, bytes: u64) {
        self.files[index].bytes = bytes;
    }

    /// This file is served: prints what to type elsewhere.
    ///
    /// # Errors
    /// As `print`.
    pub fn shared(
        &mut self,
        index: usize,
        file: &Shared,
        link: String,
        print: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.files[index].done = true;
        match &mut self.board {
            Some(board) => board.aside(print),
            None => {
                self.events.emit(|| Event::Shared {
                    file: Subject::new(&file.data, &file.hash),
                    length: file.geometry.length(),
                    link,
                });
                Ok(())
            }
        }
    }

    /// A host has all of a file.
    pub fn copied(&self, file: &Shared, host: IpAddr, copies: usize, wanted: Option<usize>) {
        let name = file.name.as_str();
        let of = wanted.map_or(String::new(), |wanted| format!(": {copies} of {wanted}"));
        if self.board.is_some() {
            logging::tell(&format!("{host} has all of {name}{of}"));
        }
        self.events.emit(|| Event::Copy {
            file: Subject::new(&file.data, &file.hash),
            host,
            copies,
        });
    }

    /// Shows how it is, where it is time for that.
    pub fn update(&mut self, traffic: &mut Traffic, complete: usize) {
        let now = Instant::now();
        if self.drawn.is_some_and(|drawn| now - drawn < REDRAW) {
            return;
        }
        self.drawn = Some(now);
        let (connected, rate) = (traffic.connected(now), traffic.rate(now));
        let Some(board) = &mut self.board else {
            let sent = traffic.sent();
            let is_due = |(at, before): (Instant, u64)| now - at >= EVENT_EVERY && before != sent;
            if self.told.map_or(sent > 0, is_due) {
                self.told = Some((now, sent));
                self.events.emit(|| Event::Sending {
                    connected,
                    complete,
                    sent,
                    rate,
                });
            }
            return;
        };
        let jobs: Vec<Job> = self.files.iter().map(job).collect();
        let is_served = self.files.iter().any(|file| file.done);
        board.update_above(&jobs, |columns| match is_served {
            true => live(connected, complete, rate, columns),
            false => String::new(),
        });
    }

    /// Says what it came to.
    pub fn end(&mut self, traffic: &Traffic, complete: usize) {
        let lasted = traffic.lasted(Instant::now());
        let (sent, hosts) = (traffic.sent(), traffic.hosts());
        self.events.emit(|| Event::Ended {
            seconds: lasted.as_secs_f64(),
            sent,
            hosts,
            complete,
        });
        let is_served = self.files.iter().any(|file| file.done);
        if self.board.take().is_some() && is_served {
            logging::tell(&summary(lasted, sent, hosts, complete));
        }
    }
}

fn job(file: &Checked) -> Job {
    let bytes = file.bytes.min(file.length);
    let phase = match (file.done, bytes) {
        (true, _) => Phase::Done,
        (false, 0) => Phase::Waiting,
        (false, _) => Phase::Reading("verifying"),
    };
    Job {
        name: file.name.clone(),
        phase,
        done: bytes,
        have: if file.done { file.length } else { bytes },
        total: file.length,
        moved: bytes,
        note: String::new(),
        is_news: false,
    }
}

/// The row of a share, as long as there is room for.
fn live(connected: usize, complete: usize, rate: u64, columns: usize) -> String {
    let rate = size(rate);
    let forms = [
        format!("{connected} connected, {complete} complete, {rate}/s"),
        format!("{connected} on, {complete} done, {rate}/s"),
        format!("{connected} on, {complete} done"),
        format!("{connected}/{complete}"),
    ];
    let fits = |form: &&String| form.len() < columns;
    forms.iter().find(fits).cloned().unwrap_or_default()
}

fn summary(lasted: Duration, sent: u64, hosts: usize, complete: usize) -> String {
    let lasted = humantime::format_duration(Duration::from_secs(lasted.as_secs().max(1)));
    match (sent, complete) {
        (0, 0) => format!("nobody came in {lasted}"),
        _ => format!(
            "sent {} to {} in {lasted}; {} everything",
            size(sent),
            count(hosts, "host"),
            match complete {
                1 => "1 has".into(),
                _ => format!("{complete} have"),
            }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_is_as_long_as_there_is_room_for() {
        let row = |columns| live(2, 1, 41 << 20, columns);
        assert_eq!(row(80), "2 connected, 1 complete, 41 MiB/s");
        assert_eq!(row(40), "2 connected, 1 complete, 41 MiB/s");
        assert_eq!(row(30), "2 on, 1 done, 41 MiB/s");
        assert_eq!(row(20), "2 on, 1 done");
        assert_eq!(row(5), "2/1");
        assert_eq!(row(0), "");
    }

    #[test]
    fn the_summary_says_what_it_came_to() {
        let lasted = Duration::from_millis(303_500);
        assert_eq!(summary(lasted, 0, 0, 0), "nobody came in 5m 3s");
        assert_eq!(
            summary(lasted, 3 << 30, 5, 4),
            "sent 3 GiB to 5 hosts in 5m 3s; 4 have everything"
        );
    }
}
