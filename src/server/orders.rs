//! What signals ask of a server that goes on serving: a status block in the log (USR1), a look at its configuration
//! (HUP).

use std::fmt;

use nix::sys::signal::Signal;

use super::ledger::Ledger;
use crate::logging;
use crate::service::Service;
use crate::sys::signals::Signals;

/// Does what signals ask for that have arrived. Answers whether sessions that begin from now on see something else
/// than those before. `helpers` says which processes or threads there are.
pub fn heed<S: Service>(
    signals: &Signals,
    service: &S,
    ledger: &Ledger,
    helpers: fmt::Arguments<'_>,
) -> bool {
    if signals.take(Signal::SIGUSR1) {
        let mut lines = ledger.tally().status();
        lines.extend(service.status());
        lines.push(helpers.to_string());
        logging::status(&lines);
    }
    signals.take(Signal::SIGHUP) && signals.reloading(|| service.reload())
}
