//! What the operator of a tracker wants, from the command line, the configuration and cascade files.

use std::collections::BTreeSet;

use crate::cli::{Command, Tracker};
use crate::commands::{UsageError, target};
use crate::config::changes::Said;
use crate::config::{self, Open};
use crate::store::open_data;
use crate::tracker::policy::Policy;
use crate::tracker::registry::Tracked;

/// What of the configuration is followed at once when it is read again.
const AT_ONCE: [&str; 5] = ["files", "good-ip", "good-ips", "ban-private", "open"];

/// What these options want.
///
/// # Errors
/// Where a cascade file cannot be read, and where nothing is wanted.
pub fn policy(options: &Tracker, open: Open<'_>) -> anyhow::Result<Policy> {
    let named: Vec<_> = options
        .targets
        .iter()
        .map(|target| target::describe(target, open))
        .collect::<anyhow::Result<_>>()?;
    let hashes: BTreeSet<_> = named.iter().map(|(hash, _)| *hash).collect();
    let tracked = if options.open {
        Tracked::Any
    } else if hashes.is_empty() {
        return Err(UsageError(
            "there is nothing to track: name a CASCADE or HASH, here or in the configuration, or say --open",
        )
        .into());
    } else {
        Tracked::Named(hashes)
    };
    Ok(Policy {
        tracked,
        good_ips: options.good_ip.iter().copied().collect(),
        ban_private: options.ban_private,
        described: named
            .into_iter()
            .filter_map(|(hash, description)| Some((hash, description?)))
            .collect(),
    })
}

/// What the command line and the files want now. What else the configuration says otherwise than it `said` is logged.
///
/// # Errors
/// As [`policy`], and where the configuration cannot be understood.
pub fn policy_now(said: &Said) -> anyhow::Result<Policy> {
    // Nothing is waited for that is no file: clients would wait, too.
    let now = config::again(said, &AT_ONCE, &open_data)?;
    match now.command {
        Command::Tracker(options) => policy(&options, &open_data),
        _ => anyhow::bail!("the command line is another one"),
    }
}
