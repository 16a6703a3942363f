//! `cascade verify`: checks data files against their cascade files.
//!
//! It writes nothing, and so signals keep their default: they end it at any time.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::Status;
use super::files::{cannot, check_directory, cores, for_each, one_file_only, read_cascade};
use super::progress::Work;
use crate::cascade_file::CascadeFile;
use crate::cli::Verify;
use crate::logging::complain;
use crate::output::{print_bytes, print_json};
use crate::store::bitmap::Bitmap;
use crate::store::names::{data_path, data_path_in};
use crate::store::open_data;
use crate::store::pieces::Observer;
use crate::store::verify::verify;
use crate::text::{escape_path, without_errno};

/// Checks the data file of each cascade file.
///
/// # Errors
/// In how it was called; errors with a file are said, and it goes on with the next.
pub fn run(options: &Verify) -> anyhow::Result<Status> {
    one_file_only(&options.data, &options.files)?;
    if let Some(directory) = &options.directory {
        check_directory(directory)?;
    }
    let shown = options.files.iter().map(|path| shown(options, path));
    let mut work = Work::new("verifying", shown);
    let files: Vec<(usize, &PathBuf)> = options.files.iter().enumerate().collect();
    Ok(for_each(&files, |(index, path)| {
        let status = verify_one(options, path, &mut work, *index);
        work.finish(*index);
        status
    }))
}

fn verify_one(
    options: &Verify,
    path: &Path,
    work: &mut Work,
    index: usize,
) -> anyhow::Result<Status> {
    let data = data_of(options, path)?;
    let cascade = read_cascade(path)?;
    let findings = work.observe(index, |observer| check(&data, &cascade, observer))?;
    work.aside(|| match options.json {
        true => print_json(&findings.summary(&data, path, &cascade)),
        false => print_bytes(findings.text(&data, options.verbose).as_bytes()),
    })?;
    Ok(findings.status())
}

/// The name of the data and their length, as they are shown meanwhile.
fn shown(options: &Verify, cascade: &Path) -> (String, u64) {
    let data = data_of(options, cascade).unwrap_or_else(|_| cascade.into());
    let length = data.metadata().map_or(0, |metadata| metadata.len());
    (escape_path(&data), length)
}

/// Where the data lie that a cascade file describes.
fn data_of(options: &Verify, cascade: &Path) -> anyhow::Result<PathBuf> {
    if let Some(data) = &options.data {
        return Ok(data.clone());
    }
    let data = match &options.directory {
        Some(directory) => data_path_in(directory, cascade),
        None => data_path(cascade),
    };
    data.with_context(|| {
        let name = escape_path(cascade);
        format!("cannot tell what {name} describes: it does not end in .cascade (name it with -o)")
    })
}

/// What was found out about a data file.
struct Findings {
    present: Bitmap,
    /// Whether there is such a file.
    exists: bool,
    /// Bytes beyond the end that was described.
    excess: u64,
}

fn check(path: &Path, cascade: &CascadeFile, observer: Observer<'_>) -> anyhow::Result<Findings> {
    let geometry = cascade.geometry();
    let present = Bitmap::new(geometry.blocks()).context("cannot count blocks")?;
    let data = match open_data(path) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Findings {
                present,
                exists: false,
                excess: 0,
            });
        }
        Err(error) => return Err(cannot("read", path, error)),
    };
    let unreadable = |block: u32, error: &io::Error| {
        let error = without_errno(&error.to_string());
        complain(&anyhow::anyhow!(
            "cannot read block {block} of {}: {error}",
            escape_path(path)
        ));
    };
    let length = verify(&data, cascade, &present, cores(), observer, &unreadable)
        .and_then(|_| data.metadata())
        .map_err(|error| cannot("read", path, error))?
        .len();
    Ok(Findings {
        present,
        exists: true,
        excess: length.saturating_sub(geometry.length()),
    })
}

impl Findings {
    fn ok(&self) -> bool {
        self.exists && self.excess == 0 && self.present.is_full()
    }

    fn status(&self) -> Status {
        if self.ok() {
            Status::Done
        } else {
            Status::DataMissing
        }
    }

    /// The blocks that are missing or wrong, in order.
    fn bad(&self) -> impl Iterator<Item = u32> {
        (0..self.present.blocks()).filter(|block| !self.present.get(*block))
    }

    fn text(&self, data: &Path, verbose: bool) -> String {
        let name = escape_path(data);
        let blocks = self.present.blocks();
        let bad = blocks - self.present.count();
        if self.ok() {
            return format!("{name}: OK\n");
        }
        if !self.exists && blocks == 0 {
            return format!("{name}: missing\n");
        }
        let mut text = String::new();
        if bad > 0 {
            let noun = if blocks == 1 { "block" } else { "blocks" };
            text += &format!("{name}: {bad} of {blocks} {noun} missing or wrong\n");
        }
        if bad > 0 && verbose {
            let noun = if bad == 1 { "block" } else { "blocks" };
            text += &format!("{name}: {noun} {}\n", ranges(self.bad()));
        }
        if self.excess > 0 {
            let noun = if self.excess == 1 { "byte" } else { "bytes" };
            text += &format!("{name}: {} {noun} too long\n", self.excess);
        }
        text
    }

    fn summary(&self, data: &Path, path: &Path, cascade: &CascadeFile) -> Summary {
        Summary {
            file: data.to_string_lossy().into_owned(),
            cascade: path.to_string_lossy().into_owned(),
            hash: cascade.hash().to_string(),
            ok: self.ok(),
            blocks: self.present.blocks(),
            bad: self.bad().collect(),
            excess: self.excess,
        }
    }
}

/// Ascending numbers for people: `3-7, 9`.
fn ranges(numbers: impl Iterator<Item = u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let texts: Vec<String> = runs
        .iter()
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            _ => format!("{first}-{last}"),
        })
        .collect();
    texts.join(", ")
}

/// What was found, for programs.
#[derive(Serialize)]
struct Summary {
    file: String,
    cascade: String,
    hash: String,
    ok: bool,
    blocks: u32,
    bad: Vec<u32>,
    excess: u64,
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn numbers_in_a_row_are_a_range() {
        assert_eq!(ranges([3, 4, 5, 6, 7, 9].into_iter()), "3-7, 9");
        assert_eq!(ranges([0, 1].into_iter()), "0-1");
        assert_eq!(ranges([u32::MAX].into_iter()), "4294967295");
    }
}
