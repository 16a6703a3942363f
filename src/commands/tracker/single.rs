//! A tracker that serves one connection, which somebody else accepted: its registry is a file that others of its kind
//! change as well.
//!
//! To answer takes no lock, for the file is replaced as a whole. Who changes it has a lock, reads it again, and has
//! written it before its client hears of that. Where a tracker that listens has the file, what is there is old, and every
//! client is refused.

use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

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
use crate::tracker::lock::{self, Claim};
use crate::tracker::policy::Policy;

/// What clients hear where a tracker that listens has the state.
const ELSEWHERE: &str =
    "another tracker answers for this one's files; its operator has to stop one of them";

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
    let limits = limits_with_pool(Limits::default(), &options.limits, options.server.pool);
    if let Some(reason) = lock::in_the_way(state)? {
        let refusing = empty_service(options, policy.clone())?.that_refuses(ELSEWHERE);
        inetd::serve(&refusing, &limits, confinement, |_, _| Ok(()))?;
        bail!(reason);
    }
    let service = || empty_service(options, policy.clone());
    let now = SystemTime::now();
    let answering = service()?.with_peers_of(state, now)?;
    inetd::serve(&answering, &limits, confinement, |remote, change| {
        let _lock = lock::take(&path, Claim::OneChange)?;
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
