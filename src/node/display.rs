//! What a person sees of downloads: bars on a terminal, otherwise a line every few seconds; at the end a summary.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{
    HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle,
};

use super::finishing::{Step, Watch};
use super::item::{Item, Stage};
use crate::cli::Reporting;
use crate::download::progress::Figure;
use crate::events::{Event, Events};
use crate::logging::{self, Diverted};

/// How often bars are drawn.
pub const REDRAW: Duration = Duration::from_millis(200);
/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How often an event tells how far a file is.
const EVENT_EVERY: Duration = Duration::from_secs(1);

const DOWNLOADING: &str =
    "{prefix:18!} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}";
const BEFORE: &str = "{prefix:18!} [{wide_bar}] {bytes}/{total_bytes} {msg}";

/// The downloads of a node, as they are shown.
#[derive(Debug)]
pub enum Display {
    /// A bar per file, with the lines of the log above. It is never drawn by a thread of its own: this process forks.
    Bars(MultiProgress, Vec<Option<ProgressBar>>, Diverted),
    /// A line every few seconds.
    Lines(Vec<Line>),
    /// Events, for a program.
    Events(Events, Vec<Told>),
    /// Nothing.
    Nothing,
}

/// What the last events about a file told.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    at: Instant,
    bytes: u64,
    peers: u64,
    finishing: Watch,
}

/// What the last line about a file said.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    at: Instant,
    bytes: u64,
    finishing: Watch,
}

impl Told {
    fn new() -> Self {
        Self {
            at: Instant::now(),
            bytes: 0,
            peers: 0,
            finishing: Watch::default(),
        }
    }
}

impl Line {
    fn new() -> Self {
        Self {
            at: Instant::now(),
            bytes: 0,
            finishing: Watch::default(),
        }
    }
}

impl Display {
    /// Shows so many files in the way that was asked for, or that fits standard error.
    pub fn new(files: usize, reporting: &Reporting, events: &Events) -> Self {
        if reporting.json {
            return Self::Events(events.clone(), vec![Told::new(); files]);
        }
        if reporting.quiet {
            return Self::Nothing;
        }
        let shows_bars = std::io::stderr().is_terminal() && !logging::is_for_programs();
        let log = shows_bars.then(logging::divert);
        if let Some(Ok(log)) = log {
            let target = ProgressDrawTarget::stderr_with_hz(10);
            Self::Bars(
                MultiProgress::with_draw_target(target),
                vec![None; files],
                log,
            )
        } else {
            Self::Lines(vec![Line::new(); files])
        }
    }

    /// Shows how far the files are.
    pub fn update(&mut self, items: &[Item]) {
        match self {
            Self::Bars(all, bars, log) => {
                for line in log.take() {
                    // A terminal that cannot be written to any more has no reader.
                    let _ = all.println(line);
                }
                for (item, bar) in items.iter().zip(bars.iter_mut()) {
                    update_bar(all, item, bar);
                }
            }
            Self::Lines(lines) => {
                for (item, line) in items.iter().zip(lines.iter_mut()) {
                    print_line(item, line);
                }
            }
            Self::Events(events, told) => {
                for (item, told) in items.iter().zip(told.iter_mut()) {
                    tell(events, item, told);
                }
            }
            Self::Nothing => {}
        }
    }

    /// There is one file more, the last.
    pub fn add(&mut self) {
        match self {
            Self::Bars(_, bars, _) => bars.push(None),
            Self::Lines(lines) => lines.push(Line::new()),
            Self::Events(_, told) => told.push(Told::new()),
            Self::Nothing => {}
        }
    }

    /// There is one file less.
    pub fn remove(&mut self, index: usize) {
        match self {
            Self::Bars(_, bars, _) => {
                if let Some(bar) = bars.remove(index) {
                    bar.finish_and_clear();
                }
            }
            Self::Lines(lines) => _ = lines.remove(index),
            Self::Events(_, told) => _ = told.remove(index),
            Self::Nothing => {}
        }
    }

    /// Prints something while no bar is in its way.
    pub fn aside<R>(&self, print: impl FnOnce() -> R) -> R {
        match self {
            Self::Bars(all, _, _) => all.suspend(print),
            Self::Lines(_) | Self::Events(..) | Self::Nothing => print(),
        }
    }

    /// Takes the bars off the terminal; from now on the log goes there.
    pub fn clear(&mut self) {
        if let Self::Bars(all, bars, _) = self {
            bars.iter_mut()
                .filter_map(Option::take)
                .for_each(|bar| bar.finish_and_clear());
            // A terminal that cannot be drawn to any more needs no clearing.
            let _ = all.clear();
        }
        *self = Self::Nothing;
    }
}

fn update_bar(all: &MultiProgress, item: &Item, bar: &mut Option<ProgressBar>) {
    let verifying = matches!(item.stage, Stage::Verifying(_));
    let downloading = matches!(item.stage, Stage::Downloading(_));
    if !verifying && !downloading {
        if let Some(bar) = bar.take() {
            bar.finish_and_clear();
        }
        return;
    }
    let bar = bar.get_or_insert_with(|| {
        let bar = all.add(ProgressBar::new(item.geometry.length()));
        bar.set_prefix(short(&item.name));
        bar
    });
    let step = Step::of(item);
    let rate_is_known = !verifying && step.is_none() && item.progress.get(Figure::Received) > 0;
    let template = if rate_is_known { DOWNLOADING } else { BEFORE };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    if verifying {
        bar.set_position(
            item.progress
                .get(Figure::Checked)
                .min(item.geometry.length()),
        );
        bar.set_message("verifying");
    } else {
        if bar.message() == "verifying" {
            // What was there already does not count towards the rate.
            bar.set_position(item.verified_bytes());
            bar.reset_eta();
            bar.reset_elapsed();
        }
        bar.set_position(item.verified_bytes());
        bar.set_message(match step {
            Some(step) => step.to_string(),
            None => peers(item.progress.get(Figure::Peers)),
        });
    }
    bar.tick();
}

fn print_line(item: &Item, line: &mut Line) {
    let elapsed = line.at.elapsed();
    let step = Step::of(item);
    let step_is_new = line.finishing.due(step).is_some();
    if elapsed < LINE_EVERY && !step_is_new {
        return;
    }
    let length = item.geometry.length();
    let text = match (item.stage, step) {
        (Stage::Verifying(_), _) => {
            let checked = item.progress.get(Figure::Checked).min(length);
            format!(
                "verifying, {} of {}",
                HumanBytes(checked),
                HumanBytes(length)
            )
        }
        (Stage::Downloading(_), Some(step)) => format!("all blocks are here, {step}"),
        (Stage::Downloading(_), None) => {
            let bytes = item.verified_bytes();
            let rate = (bytes.saturating_sub(line.bytes) as f64 / elapsed.as_secs_f64()) as u64;
            let percent = bytes * 100 / length.max(1);
            let left = (length - bytes).checked_div(rate).map(Duration::from_secs);
            let left = left.map_or(String::new(), |left| {
                format!(", {} left", HumanDuration(left))
            });
            line.bytes = bytes;
            let (done, peers) = (HumanBytes(bytes), peers(item.progress.get(Figure::Peers)));
            format!(
                "{percent} %, {done} of {}, {}/s{left}, {peers}",
                HumanBytes(length),
                HumanBytes(rate)
            )
        }
        _ => return,
    };
    line.at = Instant::now();
    logging::tell(&format!("{}: {text}", item.name));
}

/// Emits what has changed: the number of peers at once, the bytes every second, what takes long at the end.
fn tell(events: &Events, item: &Item, told: &mut Told) {
    if !matches!(item.stage, Stage::Downloading(_)) {
        return;
    }
    let (bytes, peers) = (item.verified_bytes(), item.progress.get(Figure::Peers));
    if peers != told.peers {
        told.peers = peers;
        let file = item.subject();
        events.emit(|| Event::Peers { file, peers });
    }
    if bytes != told.bytes && told.at.elapsed() >= EVENT_EVERY {
        (told.at, told.bytes) = (Instant::now(), bytes);
        let (file, length) = (item.subject(), item.geometry.length());
        events.emit(|| Event::Progress {
            file,
            bytes,
            length,
        });
    }
    if let Some(step) = told.finishing.due(Step::of(item)) {
        let (file, step) = (item.subject(), step.name());
        events.emit(|| Event::Finishing { file, step });
    }
}

/// The summary of a download that is complete.
pub fn summary(item: &Item) -> String {
    let received = item.progress.get(Figure::Fetched);
    if received == 0 {
        return format!("{}: complete", item.name);
    }
    let seconds = item.progress.get(Figure::Milliseconds).max(1) as f64 / 1000.0;
    let rate = HumanBytes((received as f64 / seconds) as u64);
    let from = peers(item.progress.get(Figure::Contributors));
    format!(
        "{}: {} in {seconds:.2} s ({rate}/s) from {from}",
        item.name,
        HumanBytes(received)
    )
}

/// What a download asked for, and what of it was in vain.
pub fn waste(item: &Item) -> String {
    let figure = |figure| item.progress.get(figure);
    let received = figure(Figure::Received);
    format!(
        "{}: {} requests, {} in vain; {received} bytes received, {} in vain",
        item.name,
        figure(Figure::Requests),
        figure(Figure::InVain),
        received.saturating_sub(figure(Figure::Fetched)),
    )
}

fn peers(count: u64) -> String {
    if count == 1 {
        "1 peer".into()
    } else {
        format!("{count} peers")
    }
}

/// The end of a path that is too long for a line with a bar.
fn short(name: &str) -> String {
    const MOST: usize = 18;
    let file = name.rsplit('/').next().unwrap_or(name);
    let count = file.chars().count();
    if count <= MOST {
        file.into()
    } else {
        format!(
            "…{}",
            file.chars().skip(count - MOST + 1).collect::<String>()
        )
    }
}
