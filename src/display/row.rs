//! What a row on a terminal says of a job, and what a line does where there is none.

use console::measure_text_width;

use super::labels::labels;
use super::{Job, Phase};
use crate::text::{size, size_of};

const PERCENT: usize = 5;
const RATE: usize = 11;
const LEFT: usize = 8;
const BYTES: usize = 15;
const NOTE: usize = 13;
/// The shortest bar that says something, with its brackets and a space.
const BAR: usize = 9;

/// How the columns of a terminal are shared out, for all of its rows.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    all: usize,
    name: usize,
    bar: usize,
    has_rate: bool,
    has_left: bool,
    has_bytes: bool,
    has_note: bool,
}

impl Columns {
    /// What fits beside the names, the most important first.
    pub fn fit(columns: usize, names: &[&str]) -> Self {
        // The cursor stays on the row.
        let all = columns.saturating_sub(1);
        let longest = labels(names, usize::MAX);
        let longest = longest.iter().map(|name| measure_text_width(name)).max();
        let longest = longest.unwrap_or(0).max("total".len());
        let name = longest.min((all * 2 / 9).max(8));
        let mut free = all.saturating_sub(name + PERCENT);
        let mut takes = |columns: usize, leaves: usize| {
            let fits = free >= columns + leaves;
            free -= if fits { columns } else { 0 };
            fits
        };
        let has_rate = takes(RATE, 0);
        let has_left = takes(LEFT, 0);
        let has_bytes = takes(BYTES, 0);
        let has_note = takes(NOTE, 0);
        let bar = if free >= BAR { free.min(40) } else { 0 };
        Self {
            all,
            name: longest.min(name + free - bar),
            bar,
            has_rate,
            has_left,
            has_bytes,
            has_note,
        }
    }

    /// The labels that fit the first column.
    pub fn labels(&self, names: &[&str]) -> Vec<String> {
        labels(names, self.name)
    }

    /// A row without columns.
    pub fn plain(&self, text: &str) -> String {
        cut(text, self.all)
    }

    /// The row of a job.
    pub fn row(&self, label: &str, job: &Job, rate: Option<u64>) -> String {
        let space = self.name.saturating_sub(measure_text_width(label));
        let label = format!("{label}{}", " ".repeat(space));
        let percent = percent(job.done, job.total);
        let row = match job.phase {
            Phase::Waiting if job.done == 0 => format!("{label}      waiting"),
            Phase::Waiting => format!("{label} {percent:>3}% waiting"),
            Phase::Ending => format!("{label} {percent:>3}% {}", job.note),
            _ => format!("{label} {percent:>3}%{}", self.figures(job, rate)),
        };
        cut(&row, self.all).trim_end().into()
    }

    fn figures(&self, job: &Job, rate: Option<u64>) -> String {
        let mut text = String::new();
        if self.bar > 0 {
            text.push_str(&bar(job.done, job.total, self.bar));
        }
        if self.has_bytes {
            text.push_str(&format!("{:>BYTES$}", size_of(job.done, job.total, "/")));
        }
        if self.has_rate {
            let rate = rate.map_or(String::new(), |rate| format!("{}/s", size(rate)));
            text.push_str(&format!("{rate:>RATE$}"));
        }
        if self.has_left {
            let left = left(job, rate).map_or(String::new(), clock);
            text.push_str(&format!("{left:>LEFT$}"));
        }
        if self.has_note {
            let note = match job.phase {
                Phase::Reading(what) => what,
                _ => &job.note,
            };
            text.push_str(&format!("  {note}"));
        }
        text
    }
}

/// What is told of a job where no terminal shows it.
pub fn line(job: &Job, rate: Option<u64>) -> String {
    let name = &job.name;
    if job.phase == Phase::Ending {
        return format!("{name}: {}", job.note);
    }
    let what = match job.phase {
        Phase::Reading(what) => format!("{what}, "),
        _ => String::new(),
    };
    let percent = percent(job.done, job.total);
    let done = size_of(job.done, job.total, " of ");
    let rate_text = rate.map_or(String::new(), |rate| format!(", {}/s", size(rate)));
    let left = left(job, rate).map_or(String::new(), |left| format!(", {} left", clock(left)));
    let note = match job.note.as_str() {
        "" => String::new(),
        note => format!(", {note}"),
    };
    format!("{name}: {what}{percent} %, {done}{rate_text}{left}{note}")
}

/// Seconds until it is done; nothing where nothing moves.
fn left(job: &Job, rate: Option<u64>) -> Option<u64> {
    let rest = job.total.saturating_sub(job.done);
    rate.filter(|rate| *rate > 0)
        .map(|rate| rest.div_ceil(rate))
}

/// Not 100 before all of it is there.
fn percent(done: u64, total: u64) -> u64 {
    if total == 0 {
        return 100;
    }
    // In 128 bits, for lengths are anything.
    (u128::from(done.min(total)) * 100 / u128::from(total)) as u64
}

fn bar(done: u64, total: u64, columns: usize) -> String {
    let inner = columns.saturating_sub(3);
    let full = (u128::from(done.min(total)) * inner as u128 / u128::from(total.max(1))) as usize;
    let head = if full < inner { ">" } else { "" };
    let bar = format!("{}{head}", "=".repeat(full));
    format!(" [{bar:<inner$}]")
}

/// `0:21`, `1:02:03`, `5 days`.
fn clock(seconds: u64) -> String {
    const DAY: u64 = 86_400;
    let (minutes, second) = (seconds / 60, seconds % 60);
    match seconds {
        0..3600 => format!("{minutes}:{second:02}"),
        3600..DAY => format!("{}:{:02}:{second:02}", minutes / 60, minutes % 60),
        _ if seconds < 100 * DAY => format!("{}d {}h", seconds / DAY, seconds % DAY / 3600),
        _ => ">99d".into(),
    }
}

fn cut(text: &str, columns: usize) -> String {
    console::truncate_str(text, columns, "").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> Job {
        Job {
            name: name.into(),
            phase: Phase::Receiving,
            done: 50_855_936,
            have: 0,
            total: 286 << 20,
            moved: 0,
            note: "3 peers".into(),
            is_news: false,
        }
    }

    fn row(columns: usize, job: &Job, rate: Option<u64>) -> String {
        let names = [job.name.as_str()];
        let fit = Columns::fit(columns, &names);
        fit.row(&fit.labels(&names)[0], job, rate)
    }

    #[test]
    fn a_row_has_what_fits_its_terminal() {
        let job = job("lectures/a-recording-of-the-first-lecture.mp4");
        let rate = Some(11_744_052);
        for (columns, expected) in [
            (
                120,
                "a-recording-o…t-lecture.mp4  16% [======>                              ]   48.5/286 MiB 11.2 MiB/s    0:22  3 peers",
            ),
            (
                80,
                "a-record…ture.mp4  16% [=>     ]   48.5/286 MiB 11.2 MiB/s    0:22  3 peers",
            ),
            (
                60,
                "a-recordin…cture.mp4  16%   48.5/286 MiB 11.2 MiB/s    0:22",
            ),
            (40, "a-recor…ure.mp4  16% 11.2 MiB/s    0:22"),
            (20, "a-recor…re.mp4  16%"),
            (5, "a-re"),
        ] {
            let row = row(columns, &job, rate);
            assert_eq!(row, expected);
            assert!(measure_text_width(&row) < columns);
        }
    }

    #[test]
    fn no_time_is_left_where_nothing_arrives() {
        assert!(row(80, &job("a"), Some(11_744_052)).contains("0:22"));
        assert!(!row(80, &job("a"), Some(0)).contains(':'));
        assert!(!row(80, &job("a"), None).contains("/s"));
    }

    #[test]
    fn a_line_says_the_same_in_words() {
        assert_eq!(
            line(&job("x/a"), Some(11_744_052)),
            "x/a: 16 %, 48.5 of 286 MiB, 11.2 MiB/s, 0:22 left, 3 peers"
        );
        let reading = Job {
            phase: Phase::Reading("verifying"),
            note: String::new(),
            ..job("a")
        };
        assert_eq!(line(&reading, None), "a: verifying, 16 %, 48.5 of 286 MiB");
        let last = Job {
            phase: Phase::Ending,
            note: "syncing to disk".into(),
            ..job("a")
        };
        assert_eq!(line(&last, None), "a: syncing to disk");
        assert_eq!(row(20, &last, None), "a      16% syncing");
    }

    #[test]
    fn all_is_there_when_all_is_there() {
        assert_eq!(percent(u64::MAX - 1, u64::MAX), 99);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        assert_eq!(percent(0, 0), 100);
        assert_eq!(bar(1, 2, 9), " [===>  ]");
        assert_eq!(bar(2, 2, 9), " [======]");
    }

    #[test]
    fn times_are_read_at_a_glance() {
        for (seconds, text) in [
            (0, "0:00"),
            (61, "1:01"),
            (3723, "1:02:03"),
            (97_200, "1d 3h"),
            (u64::MAX, ">99d"),
        ] {
            assert_eq!(clock(seconds), text);
        }
    }
}
