//! What the environment says. cascade(1), ENVIRONMENT.

use anyhow::anyhow;

use crate::cli;
use crate::net::address::HostPort;

/// The tracker where the command line names none.
const TRACKER: &str = "CASCADE_TRACKER";

/// The trackers of the command line; where there is none, that of the environment, where there is one.
///
/// # Errors
/// Where the environment names something that is no HOST[:PORT].
pub fn or_environment(trackers: Vec<HostPort>) -> anyhow::Result<Vec<HostPort>> {
    match std::env::var(TRACKER) {
        Ok(text) if trackers.is_empty() && !text.is_empty() => {
            Ok(vec![cli::tracker(&text).map_err(|reason| {
                anyhow!("cannot use {TRACKER}: {reason}")
            })?])
        }
        _ => Ok(trackers),
    }
}
