//! `cascade list`: the peers that a tracker knows.

use std::fs::File;
use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::environment::or_environment;
use super::{Status, UsageError, print, target};
use crate::cli::{List, Target};
use crate::hash::CascadeHash;
use crate::logging;
use crate::net::connect::by_turns;
use crate::net::resolve;
use crate::store::names::data_path;
use crate::text::escape_path;
use crate::tracker::client;
use crate::wire::tracker::{Command, NOBODY, PeerRecord, Request};

/// Asks a tracker for the peers of a file, and prints a line for each.
///
/// # Errors
/// Where the tracker cannot be reached, or refuses.
pub fn run(options: &List) -> anyhow::Result<Status> {
    let request = Request {
        command: Command::List,
        hash: target::hash_of(&options.target, &|path| File::open(path))?,
        peer: NOBODY,
    };
    let named = or_environment(options.tracker.iter().cloned().collect())?;
    let Some(tracker) = named.first() else {
        return Err(UsageError("no tracker given: name one with -t HOST:PORT").into());
    };
    let addresses = resolve::here(&tracker.host, &tracker.port)?;
    let answer = client::ask(&by_turns(&addresses), &request, client::TIMEOUT)
        .with_context(|| format!("cannot list the peers at {tracker}"))?;
    if answer.peers.is_empty() {
        let file = file_name(&options.target, &request.hash);
        logging::fail(format_args!("no peer is registered for {file}"));
    }
    for peer in &answer.peers {
        print(format_args!("{}\n", line(peer)))?;
    }
    Ok(Status::Done)
}

/// A file, for people.
fn file_name(target: &Target, hash: &CascadeHash) -> String {
    match target {
        Target::Hash(hash) => hash.to_string(),
        Target::CascadeFile(path) => {
            let data = data_path(path).unwrap_or_else(|| path.clone());
            let short: String = hash.to_string().chars().take(8).collect();
            format!("{} ({short}…)", escape_path(&data))
        }
    }
}

fn line(peer: &PeerRecord) -> String {
    let seen = SystemTime::UNIX_EPOCH + Duration::from_secs(peer.last_seen.into());
    format!(
        "{}  {}{}",
        peer.address,
        humantime::format_rfc3339_seconds(seen),
        if peer.good { "  good" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_address_time_and_the_operators_word() {
        let mut peer = PeerRecord {
            address: std::net::SocketAddrV4::new([192, 0, 2, 1].into(), 80),
            last_seen: 1_795_446_245,
            good: false,
        };
        assert_eq!(line(&peer), "192.0.2.1:80  2026-11-23T15:04:05Z");
        peer.good = true;
        assert_eq!(line(&peer), "192.0.2.1:80  2026-11-23T15:04:05Z  good");
    }
}
