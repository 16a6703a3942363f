//! The accept loop, and what every connection has in common.
//!
//! | module | what it is |
//! |---|---|
//! | [`process`] | a child for each connection: signal, accept, fork, close, reap |
//! | [`connection`] | one connection: its session, its socket, its deadlines |
//! | [`limits`] | what a server grants its clients |
//! | [`tally`] | how connections ended |

pub mod connection;
pub mod limits;
pub mod process;
pub mod tally;

use std::io;
use std::net::TcpListener;

pub use limits::Limits;
pub use tally::Tally;

use crate::service::Service;
use crate::sys::signals::Signals;

/// Serves connections until a TERM or INT, which `signals` must catch beside CHLD; then lets transfers finish within
/// the grace period, and answers what became of all connections.
///
/// # Errors
/// Where the loop itself cannot go on; never because of a client.
pub fn serve<S: Service>(
    listeners: &[TcpListener],
    service: &S,
    limits: &Limits,
    signals: &Signals,
) -> io::Result<Tally> {
    process::serve(listeners, service, limits, signals)
}
