//! `cascade status`: how a running tracker or peer is.

use anyhow::Context;

use super::{Status, print};
use crate::cli;
use crate::output::print_json;
use crate::status::{client, report, words};
use crate::text::escape_path;

/// Asks a server through its control socket, and prints what it tells.
///
/// # Errors
/// Where nobody answers, or answers something else.
pub fn run(options: &cli::Status) -> anyhow::Result<Status> {
    let asking = || format!("cannot ask {}", escape_path(&options.socket));
    let answer = client::ask(&options.socket, options.timeout).with_context(asking)?;
    if options.json {
        // As it is: what a later version tells as well is told.
        print_json(&answer)?;
        return Ok(Status::Done);
    }
    let status: report::Status = serde_json::from_value(answer)
        .context("it answered something that is no status")
        .with_context(asking)?;
    print(format_args!("{}", words::report(&status)))?;
    Ok(Status::Done)
}
