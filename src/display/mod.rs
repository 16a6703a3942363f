//! How far long work is, for people: rows that are redrawn on a terminal, elsewhere a line every few seconds.
//!
//! Whoever works describes each file as a [`Job`], and gives all of them to [`Board::update`] a few times a second. No
//! thread draws: the processes that use this fork.

mod labels;
mod rate;
mod row;
mod screen;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::logging;
use crate::text;
use rate::Rate;
use row::Columns;
use screen::Screen;

pub use labels::labels;

/// How often rows are to be drawn.
pub const REDRAW: Duration = Duration::from_millis(200);
/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Of how many files without a row the labels are told apart as well.
const OTHERS: usize = 50;

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its turn has not come.
    Waiting,
    /// Its data are read; this word says what for.
    Reading(&'static str),
    /// Its data arrive.
    Receiving,
    /// The rest has no bytes to count: the note says what it is.
    Ending,
    /// Nothing more is done: it has no row.
    Done,
    /// It was given up: it has no row, and is no part of the total.
    GivenUp,
}

/// A file, as far as it is.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its path, fit to be shown.
    pub name: String,
    /// What is done with it.
    pub phase: Phase,
    /// Bytes that this phase is done with.
    pub done: u64,
    /// Bytes of the file that are right, for the total of several files.
    pub have: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes that were moved in this run: the rate follows these.
    pub moved: u64,
    /// What else is to be said of it.
    pub note: String,
    /// Where lines are printed, it is time for one.
    pub is_news: bool,
}

impl Job {
    fn has_row(&self) -> bool {
        self.is_running() || self.phase == Phase::Waiting
    }

    fn is_running(&self) -> bool {
        matches!(
            self.phase,
            Phase::Reading(_) | Phase::Receiving | Phase::Ending
        )
    }
}

/// What is known of a job from one update to the next.
#[derive(Debug)]
struct Memory {
    phase: Phase,
    rate: Rate,
    printed: Instant,
}

impl Memory {
    fn new(phase: Phase) -> Self {
        Self {
            phase,
            rate: Rate::default(),
            printed: Instant::now(),
        }
    }
}

/// Where jobs are shown: on standard error.
#[derive(Debug)]
pub struct Board {
    /// Nothing where there is no terminal that rows can be drawn on.
    screen: Option<Screen>,
    /// By the names of the jobs.
    memory: HashMap<String, Memory>,
    /// When a line about all of them was printed.
    printed: Instant,
}

impl Board {
    /// Rows where standard error is a terminal that can move its cursor, otherwise lines.
    pub fn new() -> Self {
        Self {
            screen: Screen::open(),
            memory: HashMap::new(),
            printed: Instant::now(),
        }
    }

    /// Shows how far these are.
    pub fn update(&mut self, jobs: &[Job]) {
        self.update_above(jobs, |_| String::new());
    }

    /// As [`Board::update`], with a row below that is made for so many columns. Where there are only lines, it is left
    /// out.
    pub fn update_above(&mut self, jobs: &[Job], last: impl FnOnce(usize) -> String) {
        let now = Instant::now();
        self.memory
            .retain(|name, _| jobs.iter().any(|job| job.name == *name));
        for job in jobs {
            let memory = self.memory.entry(job.name.clone());
            let memory = memory.or_insert_with(|| Memory::new(job.phase));
            if memory.phase != job.phase {
                // What was found, or read, does not count towards the rate of what arrives.
                memory.rate = Rate::default();
                memory.phase = job.phase;
            }
            memory.rate.add(now, job.moved);
        }
        match &mut self.screen {
            Some(screen) => screen.draw(|rows, columns| {
                let last = Some(last(columns)).filter(|last| !last.is_empty());
                let rows = rows.saturating_sub(last.iter().len());
                let mut lines = match jobs {
                    [] => Vec::new(),
                    jobs => frame(jobs, &self.memory, rows, columns),
                };
                lines.extend(last);
                lines
            }),
            None => self.print_lines(jobs, now),
        }
    }

    /// Prints something while no row is in its way.
    pub fn aside<R>(&mut self, print: impl FnOnce() -> R) -> R {
        if let Some(screen) = &mut self.screen {
            screen.erase();
        }
        print()
    }

    fn print_lines(&mut self, jobs: &[Job], now: Instant) {
        for job in jobs.iter().filter(|job| job.is_running()) {
            let Some(memory) = self.memory.get_mut(&job.name) else {
                continue;
            };
            if job.is_news || now - memory.printed >= LINE_EVERY {
                memory.printed = now;
                logging::tell(&row::line(job, memory.rate.get()));
            }
        }
        if now - self.printed >= LINE_EVERY {
            self.printed = now;
            if let Some((total, rate)) = total(jobs, &self.memory) {
                logging::tell(&row::line(&total, rate));
            }
        }
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(screen) = &mut self.screen {
            screen.erase();
        }
    }
}

/// The rows of all jobs, at most so many: those that are worked at, then those that wait, and the total.
fn frame(
    jobs: &[Job],
    memory: &HashMap<String, Memory>,
    rows: usize,
    columns: usize,
) -> Vec<String> {
    let rate = |job: &Job| memory.get(&job.name).and_then(|memory| memory.rate.get());
    let total = total(jobs, memory);
    let running = jobs.iter().filter(|job| job.is_running());
    let waiting = jobs.iter().filter(|job| job.phase == Phase::Waiting);
    let mut shown: Vec<&Job> = running.chain(waiting).collect();
    // A line of the terminal stays free for what is printed next.
    let most = rows.saturating_sub(1 + usize::from(total.is_some())).max(1);
    let hidden = match shown.len() > most {
        true => shown.split_off(most - 1).len(),
        false => 0,
    };
    // A label stays what it is when others are done.
    let others = jobs.iter().filter(|job| !job.has_row()).take(OTHERS);
    let labelled = shown.iter().copied().chain(others);
    let names: Vec<&str> = labelled.map(|job| job.name.as_str()).collect();
    let fit = Columns::fit(columns, &names);
    let mut lines: Vec<String> = shown
        .iter()
        .zip(fit.labels(&names))
        .map(|(job, label)| fit.row(&label, job, rate(job)))
        .collect();
    if hidden > 0 {
        lines.push(fit.plain(&format!("and {}", text::count(hidden, "more file"))));
    }
    lines.extend(total.map(|(total, rate)| fit.row(&total.name, &total, rate)));
    lines
}

/// All of several jobs, and the rate of what arrives of them; nothing where only one is to be done.
fn total(jobs: &[Job], memory: &HashMap<String, Memory>) -> Option<(Job, Option<u64>)> {
    let wanted: Vec<&Job> = jobs
        .iter()
        .filter(|job| job.phase != Phase::GivenUp)
        .collect();
    let done = wanted.iter().filter(|job| job.phase == Phase::Done).count();
    if wanted.len() < 2 || done == wanted.len() {
        return None;
    }
    let sum = |of: fn(&Job) -> u64| {
        wanted
            .iter()
            .map(|job| of(job))
            .fold(0, u64::saturating_add)
    };
    let total = Job {
        name: "total".into(),
        phase: Phase::Receiving,
        done: sum(|job| job.have),
        have: 0,
        total: sum(|job| job.total),
        moved: 0,
        note: format!("{done}/{} done", wanted.len()),
        is_news: false,
    };
    let rates: Vec<u64> = wanted
        .iter()
        .filter(|job| job.is_running())
        .filter_map(|job| memory.get(&job.name)?.rate.get())
        .collect();
    let rate = (!rates.is_empty()).then(|| rates.iter().sum());
    Some((total, rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, phase: Phase, done: u64) -> Job {
        Job {
            name: name.into(),
            phase,
            done,
            have: done,
            total: 300 << 20,
            moved: 0,
            note: "3 peers".into(),
            is_news: false,
        }
    }

    #[test]
    fn several_files_have_a_total_and_wait_for_their_turn() {
        let jobs = [
            job("a.img", Phase::Done, 300 << 20),
            job("c.img", Phase::Waiting, 0),
            job("b.img", Phase::Receiving, 150 << 20),
        ];
        let lines = frame(&jobs, &HashMap::new(), 24, 80);
        let starts = ["b.img  50% [=", "c.img      waiting", "total  50% [="];
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{line:?}");
        }
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(lines[2].ends_with("1/3 done"), "{lines:#?}");
    }

    #[test]
    fn a_small_terminal_has_the_files_that_are_worked_at() {
        let mut jobs: Vec<Job> = (0..100)
            .map(|index| job(&format!("{index}"), Phase::Waiting, 0))
            .collect();
        jobs[99].phase = Phase::Receiving;
        let lines = frame(&jobs, &HashMap::new(), 6, 80);
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(lines[0].starts_with("99 "), "{lines:#?}");
        assert!(lines[3].starts_with("and 97 more files"), "{lines:#?}");
        assert!(lines[4].starts_with("total"), "{lines:#?}");
        assert_eq!(frame(&jobs, &HashMap::new(), 0, 0).len(), 2);
    }

    #[test]
    fn one_file_is_its_own_total() {
        let jobs = [job("a", Phase::Receiving, 1), job("b", Phase::GivenUp, 1)];
        assert_eq!(frame(&jobs, &HashMap::new(), 24, 80).len(), 1);
    }
}
