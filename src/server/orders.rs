//! Signals other than those to stop: log a status block (SIGUSR1), reload the configuration (SIGHUP).

use std::fmt;

use nix::sys::signal::Signal;

use super::ledger::Ledger;
use crate::logging;
use crate::service::Service;
use crate::sys::memory;
use crate::sys::signals::Signals;

/// Handles the signals that have arrived. Returns whether the state that new sessions see has changed. `helpers`
/// describes the server's processes or threads.
pub fn heed<S: Service>(
    signals: &Signals,
    service: &S,
    ledger: &Ledger,
    helpers: fmt::Arguments<'_>,
) -> bool {
    let (tell, reload) = (signals.take(Signal::SIGUSR1), signals.take(Signal::SIGHUP));
    if tell {
        let mut lines = ledger.tally().status();
        lines.extend(service.status());
        lines.push(helpers.to_string());
        logging::status(&lines);
    }
    let changed = reload && signals.reloading(|| service.reload());
    if tell || reload {
        // Children that are forked from now on have none of it to put in order.
        memory::settle();
    }
    changed
}
