//! A tracker that serves one connection, which somebody else accepted: its registry is a file that others of its kind
//! change as well.
//!
//! To answer takes no lock, for the file is replaced as a whole. Who changes it has a lock, reads it again, and has
//! written it before its client hears of that.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};

use super::empty_service;
use crate::cli::Tracker;
use crate::commands::limits::limits_with_pool;
use crate::commands::{Status, UsageError};
use crate::confine::Confinement;
use crate::daemon::inetd;
use crate::server::Limits;
use crate::service::Service;
use crate::service::tracker::{Change, TrackerService};
use crate::store::atomic::{self, Existing};
use crate::text::escape_path;
use crate::tracker::policy::Policy;

/// How long others may have the lock, and how often is tried meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(5);

/// Serves the connection.
///
/// # Errors
/// Where the state cannot be read or written.
pub fn serve(
    options: &Tracker,
    policy: &Policy,
    confinement: &Confinement,
) -> anyhow::Result<Status> {
    let Some(state) = &options.state else {
        return Err(UsageError(
            "--inetd needs --state: without a file the tracker forgets everybody with each connection",
        )
        .into());
    };
    let path = confinement.inside(state)?;
    let service = || empty_service(options, policy.clone());
    let now = SystemTime::now();
    let answering = service()?.with_peers_of(state, now)?;
    let limits = limits_with_pool(Limits::default(), &options.limits, options.server.pool);
    inetd::serve(&answering, &limits, confinement, |remote, change| {
        let _lock = lock(&path)?;
        let current = service()?.with_peers_of(&path, now)?;
        save(&current, &path, remote, change)
    })
}

/// Applies a change, and writes the state.
fn save(
    service: &TrackerService,
    path: &Path,
    remote: SocketAddr,
    change: Change,
) -> anyhow::Result<()> {
    service.apply(remote, change, SystemTime::now());
    atomic::write_with(path, Existing::Replace, |file| {
        let mut file = BufWriter::new(file);
        service.write_peers(&mut file)?;
        file.flush()
    })
    .with_context(|| format!("cannot save {}", escape_path(path)))
}

/// Locks the state, by a file beside it: it is replaced itself. The lock ends with the descriptor.
fn lock(state: &Path) -> anyhow::Result<File> {
    let mut path = state.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let name = escape_path(&path);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = file.with_context(|| format!("cannot lock {name}"))?;
    let end = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(AGAIN),
            Err(TryLockError::WouldBlock) => {
                bail!("cannot lock {name}: others have it for too long")
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {name}"));
            }
        }
    }
}
