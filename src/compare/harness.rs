//! A server under test: a process of its own, which runs the same command that a user would.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::part::{Complaints, Part, Stop};
use super::plan::ServiceKind;
use super::proc::{self, Pss, Usage};
use crate::hash::CascadeHash;
use crate::net::listen;
use crate::server::{self, Ledger, Limits, Model};
use crate::service::Service;
use crate::store::atomic::{self, Existing};
use crate::store::create::describe;
use crate::store::names::EXTENSION;
use crate::store::pieces::unobserved;
use crate::sys::signals::Signals;

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(20);
/// The file that a peer serves, and its blocks, in bytes.
const FILE_SIZE: usize = 64 << 10;
const BLOCK_SIZE: u64 = 4 << 10;
/// Where servers under test listen: on any port that is free.
const LOOPBACK: &str = "127.0.0.1:0";

/// A server that listens; killed, and its children with it, when it is dropped.
#[derive(Debug)]
pub struct Server {
    part: Part,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts the service under a model and with these options, on a free port of the loopback interface.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start(
        service: ServiceKind,
        model: Model,
        options: &[&str],
        fixture: &Fixture,
        stop: &Stop,
    ) -> io::Result<Self> {
        let mut arguments: Vec<OsString> = match service {
            ServiceKind::Echo => vec!["echo".into(), "serve".into()],
            ServiceKind::Block => vec!["peer".into()],
            ServiceKind::Tracker => vec!["tracker".into()],
        };
        arguments.extend(["--model", &model.to_string(), "--listen", LOOPBACK].map(OsString::from));
        arguments.extend(options.iter().map(OsString::from));
        match service {
            ServiceKind::Echo => {}
            ServiceKind::Block => arguments.push(fixture.cascade_file().into()),
            ServiceKind::Tracker => arguments.push(fixture.hash.to_string().into()),
        }
        Self::of(Part::start("server", &arguments, Complaints::Kept)?, stop)
    }

    /// Takes over a part that will say where it listens.
    ///
    /// # Errors
    /// Where it does not.
    pub fn of(mut part: Part, stop: &Stop) -> io::Result<Self> {
        loop {
            // Whatever else a server prints on its way up is none of our business.
            let line = part.line(stop, START)?;
            if let Some(address) = line.strip_prefix("listening on ") {
                let address = address.parse().map_err(io::Error::other)?;
                return Ok(Self { part, address });
            }
        }
    }

    /// Processor time and processes so far.
    ///
    /// # Errors
    /// As [`proc::usage`].
    pub fn usage(&self) -> io::Result<Usage> {
        proc::usage(self.part.pid())
    }

    /// Its memory now.
    ///
    /// # Errors
    /// As [`proc::pss`].
    pub fn pss(&self) -> io::Result<Pss> {
        proc::pss(self.part.pid())
    }

    /// Whether the server's first process is gone.
    ///
    /// # Errors
    /// As waitpid(2).
    pub fn has_ended(&mut self) -> io::Result<bool> {
        self.part.has_ended()
    }
}

/// In a part: serves on a free port of the loopback interface until it is asked to stop, under the model of this name.
///
/// # Errors
/// Where it cannot listen, or there is no such model.
pub fn serve<S: Service>(model: &str, service: &S) -> io::Result<()> {
    let model = clap::ValueEnum::from_str(model, false).map_err(io::Error::other)?;
    let limits = Limits::default();
    let address = LOOPBACK.parse().map_err(io::Error::other)?;
    let listeners = listen::open(&[address], limits.backlog)?;
    let signals = Signals::new(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD])?;
    for listener in &listeners {
        println!("listening on {}", listener.local_addr()?);
    }
    let ledger = Ledger::new()?;
    server::serve(model, &listeners, service, &limits, &ledger, &signals)?;
    Ok(())
}

/// The files that a service needs, in a directory that is removed with it.
#[derive(Debug)]
pub struct Fixture {
    directory: Option<PathBuf>,
    /// The cascade hash of the file.
    pub hash: CascadeHash,
}

impl Fixture {
    /// Makes what the service needs.
    ///
    /// # Errors
    /// Where the files cannot be written.
    pub fn new(service: ServiceKind) -> io::Result<Self> {
        if service != ServiceKind::Block {
            return Ok(Self {
                directory: None,
                hash: CascadeHash::of(b"compare"),
            });
        }
        let directory = nix::unistd::mkdtemp(&std::env::temp_dir().join("cascade-compare-XXXXXX"))?;
        // From here on it is removed, also where the rest fails.
        let mut fixture = Self {
            directory: Some(directory.clone()),
            hash: CascadeHash::of(&[]),
        };
        fixture.hash = write_files(&directory)?;
        Ok(fixture)
    }

    fn cascade_file(&self) -> PathBuf {
        let directory = self.directory.as_deref().unwrap_or(Path::new("."));
        directory.join(format!("data.{EXTENSION}"))
    }
}

fn write_files(directory: &Path) -> io::Result<CascadeHash> {
    let path = directory.join("data");
    let data: Vec<u8> = (0..FILE_SIZE).map(|i| (i * 31 % 251) as u8).collect();
    atomic::write(&path, &data, Existing::Keep)?;
    let file = std::fs::File::open(&path)?;
    let cascade =
        describe(&file, BLOCK_SIZE, NonZeroUsize::MIN, &unobserved).map_err(io::Error::other)?;
    let cascade_path = directory.join(format!("data.{EXTENSION}"));
    atomic::write(&cascade_path, &cascade.encode(), Existing::Keep)?;
    Ok(cascade.hash())
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            // What cannot be removed lies in the directory for temporary files, where somebody else cleans up.
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}
