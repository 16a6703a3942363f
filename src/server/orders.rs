//! What signals ask of a server that goes on serving: a status block in the log (USR1), a look at its configuration
//! (HUP).

use std::fmt;

use nix::sys::signal::Signal;

use super::ledger::Ledger;
use crate::logging;
use crate::service::Service;
use crate::sys::memory;
use crate::sys::signals::Signals;

/// Does what signals ask for that have arrived. Answers whether sessions that begin from now on see something else
/// than those before. `helpers` says which processes or threads there are.
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
