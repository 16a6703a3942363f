//! The echo server of the isolation test, which crashes on request.
//!
//! Only this part of a comparison can crash, and only for whoever says the token of this run, which nobody but the
//! comparison knows. The servers of the program proper do not contain this service.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::{harness, part};
use crate::service::echo::EchoService;
use crate::service::{Next, Output, Reports, Service, Session};
use crate::sys::signals;

/// What the part is to serve.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The model, as it is named on the command line.
    pub model: String,
    /// The line, without its newline, that crashes a handler.
    pub token: String,
}

/// Echo, whose handlers crash when a client says the token.
#[derive(Debug)]
struct Crashable {
    echo: EchoService,
    token: Vec<u8>,
}

#[derive(Debug)]
struct CrashableSession<S> {
    echo: S,
    token: Vec<u8>,
}

impl Service for Crashable {
    type Session = CrashableSession<<EchoService as Service>::Session>;
    const REPORTS: Reports = EchoService::REPORTS;

    fn open(&self, remote: SocketAddr, now: SystemTime) -> Self::Session {
        CrashableSession {
            echo: self.echo.open(remote, now),
            token: self.token.clone(),
        }
    }

    fn apply(&self, _: SocketAddr, report: Infallible, _: SystemTime) {
        match report {}
    }
}

impl<S: Session> Session for CrashableSession<S> {
    type Report = S::Report;

    fn receive(
        &mut self,
        input: &[u8],
        output: &mut Output,
        reports: &mut Vec<Self::Report>,
    ) -> Next {
        // The comparison sends the token in one piece.
        if input == self.token {
            signals::die_of(Signal::SIGSEGV);
        }
        self.echo.receive(input, output, reports)
    }

    fn is_idle(&self) -> bool {
        self.echo.is_idle()
    }
}

/// The part's whole life.
///
/// # Errors
/// Where it cannot serve.
pub fn run() -> io::Result<()> {
    let Some(order) = part::take_order::<Order>()? else {
        return Ok(());
    };
    // The crash is wanted: it shall leave no core file.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let service = Crashable {
        echo: EchoService::quiet(),
        token: format!("{}\n", order.token).into_bytes(),
    };
    harness::serve(&order.model, &service)
}
