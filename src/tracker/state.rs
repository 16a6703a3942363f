//! The file in which the registered peers survive a restart.
//!
//! ```text
//! cascade tracker state 1
//! HASH ADDR:PORT LAST-SEEN SOURCE
//! …
//! end COUNT
//! ```
//!
//! The last line shows that the file is whole. Whether a peer is a good one is not saved: that is the operator's word
//! of the day. The file is the tracker's own, yet a person may edit it, so that every line is checked.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::view::Registration;
use crate::hash::CascadeHash;
use crate::store::atomic::{self, Existing};

/// The first line.
const HEADER: &str = "cascade tracker state 1";
/// The first word of the last line.
const END: &str = "end";
/// A line is never longer; what is longer is none of ours, and not read to its end.
const MAX_LINE: u64 = 256;

/// Why a state could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", crate::text::escape_path(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// A line makes no sense.
    #[error(
        "cannot understand {}:{line}: {reason}",
        crate::text::escape_path(path)
    )]
    Garbled {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A line of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// The file that the peer serves.
    pub hash: CascadeHash,
    /// The peer.
    pub peer: SocketAddrV4,
    /// Seconds since the Unix epoch.
    pub last_seen: u32,
    /// Who registered it.
    pub source: IpAddr,
}

impl From<Registration> for Saved {
    fn from(registration: Registration) -> Self {
        Self {
            hash: registration.hash,
            peer: registration.peer.address,
            last_seen: registration.peer.last_seen,
            source: registration.source,
        }
    }
}

/// Reads a state file, and hands each line to `take`. A file that does not exist is an empty state.
///
/// # Errors
/// Where the file cannot be read or makes no sense; what was handed over before is to be thrown away.
pub fn load(path: &Path, mut take: impl FnMut(Saved)) -> Result<(), LoadError> {
    let io_error = |error| LoadError::Io {
        path: path.to_owned(),
        error,
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(io_error)?,
    };
    let mut reader = BufReader::new(file);
    let mut parser = Parser::default();
    let mut number = 0;
    loop {
        let mut line = Vec::new();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
        number += 1;
        let result = match read.map_err(io_error)? {
            0 if parser.ended => return Ok(()),
            0 => Err("the file ends too early"),
            _ => parser.line(&line, &mut take),
        };
        result.map_err(|reason| LoadError::Garbled {
            path: path.to_owned(),
            line: number,
            reason,
        })?;
    }
}

/// Where in the file a reader is.
#[derive(Debug, Default)]
struct Parser {
    begun: bool,
    count: u64,
    ended: bool,
}

impl Parser {
    fn line(&mut self, line: &[u8], take: &mut impl FnMut(Saved)) -> Result<(), &'static str> {
        let line = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.strip_suffix('\n'));
        let line = line.ok_or("it is no line of text, or too long, or cut")?;
        if self.ended {
            return Err("something follows the end");
        }
        if !self.begun {
            self.begun = true;
            return if line == HEADER {
                Ok(())
            } else {
                Err("it is not 'cascade tracker state 1'")
            };
        }
        if let Some(count) = line.strip_prefix(END) {
            self.ended = true;
            return match count.trim_start().parse::<u64>() {
                Ok(count) if self.count == count => Ok(()),
                _ => Err("the number of records is another one"),
            };
        }
        self.count += 1;
        take(record(line)?);
        Ok(())
    }
}

fn record(line: &str) -> Result<Saved, &'static str> {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let saved = Saved {
        hash: word().parse().map_err(|_| "there is no hash")?,
        peer: word()
            .parse()
            .map_err(|_| "there is no address of a peer")?,
        last_seen: word().parse().map_err(|_| "there is no time")?,
        source: word()
            .parse()
            .map_err(|_| "there is no address of a source")?,
    };
    match words.next() {
        None => Ok(saved),
        Some(_) => Err("something follows the source"),
    }
}

/// Writes what a state file holds.
///
/// # Errors
/// Those of `to`.
pub fn write(to: &mut dyn Write, records: impl Iterator<Item = Saved>) -> io::Result<()> {
    let mut count = 0u64;
    writeln!(to, "{HEADER}")?;
    for record in records {
        writeln!(
            to,
            "{} {} {} {}",
            record.hash, record.peer, record.last_seen, record.source
        )?;
        count += 1;
    }
    writeln!(to, "{END} {count}")
}

/// Makes a state file of what was written elsewhere: of all of it, or of nothing.
///
/// # Errors
/// Those of `contents`, and where the file cannot be written; the former file is then as it was.
pub fn copy(path: &Path, contents: &mut dyn Read) -> io::Result<()> {
    atomic::write_with(path, Existing::Replace, |file| {
        io::copy(contents, file).map(|_| ())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn load_all(path: &Path) -> Result<Vec<Saved>, LoadError> {
        let mut all = Vec::new();
        load(path, |saved| all.push(saved)).map(|()| all)
    }

    fn save(path: &Path, records: impl Iterator<Item = Saved>) -> io::Result<()> {
        let mut text = Vec::new();
        write(&mut text, records)?;
        copy(path, &mut &text[..])
    }

    fn saved() -> impl Strategy<Value = Saved> {
        (
            any::<[u8; 32]>(),
            any::<u32>(),
            any::<u16>(),
            any::<u32>(),
            any::<IpAddr>(),
        )
            .prop_map(|(hash, ip, port, last_seen, source)| Saved {
                hash: CascadeHash(hash),
                peer: SocketAddrV4::new(ip.into(), port),
                last_seen,
                source,
            })
    }

    proptest! {
        #[test]
        fn what_was_saved_is_loaded(records in proptest::collection::vec(saved(), 0..20)) {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("state");
            save(&path, records.iter().copied()).expect("a write");
            prop_assert_eq!(load_all(&path).expect("a state"), records);
            prop_assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
        }

        #[test]
        fn a_file_that_was_cut_is_refused(records in proptest::collection::vec(saved(), 0..3), keep in 0.0..1.0) {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("state");
            save(&path, records.into_iter()).expect("a write");
            let text = fs::read(&path).expect("a file");
            let cut = (keep * text.len() as f64) as usize;
            fs::write(&path, &text[..cut]).expect("a write");
            prop_assert!(load_all(&path).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("state");
            fs::write(&path, bytes).expect("a write");
            prop_assert!(load_all(&path).is_err());
        }
    }

    #[test]
    fn a_missing_file_is_an_empty_state() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(
            load_all(&directory.path().join("state")).expect("a state"),
            []
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state");
        let good = format!("{} 192.0.2.1:80 5 192.0.2.1", CascadeHash([1; 32]));
        for (lines, line) in [
            (vec!["cascade tracker state 2", "end 0"], 1),
            (vec![HEADER, "nonsense", "end 1"], 2),
            (vec![HEADER, &good, &format!("{good} x"), "end 2"], 3),
            (vec![HEADER, &good, "end 2"], 3),
            (vec![HEADER, "end 0", &good], 3),
            (vec![HEADER, &"x".repeat(1000), "end 1"], 2),
            (vec![HEADER], 2),
        ] {
            fs::write(&path, format!("{}\n", lines.join("\n"))).expect("a write");
            let error = load_all(&path).expect_err("garbled").to_string();
            assert!(error.contains(&format!("state:{line}: ")), "{error}");
        }
    }
}
