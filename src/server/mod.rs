//! The accept loop in six concurrency models that serve the same sessions, and what they share.
//!
//! | module | what it is |
//! |---|---|
//! | [`iterative`] | one connection at a time |
//! | [`process`] | a child for each connection: signal, accept, fork, close, reap |
//! | [`thread`] | a detached thread for each connection |
//! | [`prethread`] | a fixed pool of threads, fed through a bounded buffer |
//! | [`event`] | one thread for all connections: epoll, and sockets that do not block |
//! | [`prefork`] | a fixed pool of processes, each accepting on its own |
//!
//! Read them side by side: they differ in nothing but the model. [`single`] is what remains of the process model where
//! another program accepts (inetd).
//!
//! | module | what they share |
//! |---|---|
//! | [`accept`] | listening sockets and signals: who comes in, when the door closes |
//! | [`connection`], [`converse`] | one connection: its session, its socket, its deadlines |
//! | [`limits`] | what a server grants its clients |
//! | [`reception`], [`guests`], [`refusals`] | who is let in, who has how many connections, how others are turned away |
//! | [`pace`], [`turns`] | upload limit and upload slots: how fast a connection may send |
//! | [`together`] | small responses sent in one write |
//! | [`orders`] | what signals ask of a server that goes on serving |
//! | [`ledger`], [`tally`] | how connections ended, and the lines of the log |
//! | [`children`], [`reports`] | of the models with processes: who lives, what they report |
//! | [`crew`], [`sbuf`] | of the models with threads: how they are counted, fed and stopped |
//!
//! An echo server with a thread for each connection, until it is asked to stop:
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use std::net::TcpStream;
//! use std::thread;
//!
//! use cascade::net::listen;
//! use cascade::server::{self, Ledger, Limits, Model};
//! use cascade::service::echo::EchoService;
//! use cascade::sys::signals::Signals;
//! use nix::sys::signal::{Signal, kill};
//! use nix::unistd::Pid;
//!
//! let limits = Limits::patient();
//! let listeners = listen::open(&["127.0.0.1:0".parse()?], limits.backlog)?;
//! let address = listeners[0].local_addr()?;
//! // Before the client exists: its thread leaves the signals to the loop.
//! let signals = Signals::new(&[Signal::SIGTERM, Signal::SIGINT])?;
//! let client = thread::spawn(move || -> std::io::Result<String> {
//!     let mut socket = TcpStream::connect(address)?;
//!     socket.write_all(b"hello\n")?;
//!     let mut line = String::new();
//!     BufReader::new(socket).read_line(&mut line)?;
//!     kill(Pid::this(), Signal::SIGTERM)?;
//!     Ok(line)
//! });
//! let (service, ledger) = (EchoService::quiet(), Ledger::new()?);
//! server::serve(Model::Thread, &listeners, &service, &limits, &ledger, &signals)?;
//! assert_eq!(client.join().expect("it ends")?, "hello\n");
//! assert!(ledger.tally().to_string().starts_with("1 connection"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod accept;
pub mod children;
pub mod connection;
pub mod converse;
pub mod crew;
pub mod event;
pub mod guests;
pub mod iterative;
pub mod ledger;
pub mod limits;
pub mod orders;
pub mod pace;
pub mod prefork;
pub mod prethread;
pub mod process;
pub mod reception;
pub mod refusals;
pub mod reports;
pub mod sbuf;
pub mod single;
pub mod tally;
pub mod thread;
pub mod together;
pub mod turns;

use std::fmt;
use std::io;
use std::net::TcpListener;

use clap::ValueEnum;

pub use ledger::Ledger;
pub use limits::Limits;
pub use tally::Tally;

use crate::service::Service;
use crate::sys::needs;
use crate::sys::signals::Signals;

/// How a server serves several clients at once, if it does.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Model {
    /// One connection at a time
    Iterative,
    /// A process for each connection
    #[default]
    Process,
    /// A thread for each connection
    Thread,
    /// A fixed pool of threads
    Prethread,
    /// One thread for all connections
    Event,
    /// A fixed pool of processes
    Prefork,
}

impl Model {
    /// All models.
    pub const ALL: [Self; 6] = [
        Self::Iterative,
        Self::Process,
        Self::Thread,
        Self::Prethread,
        Self::Event,
        Self::Prefork,
    ];

    /// Whether the server's process may have threads, be it to serve connections or for background work.
    pub fn has_threads(self) -> bool {
        !matches!(self, Self::Process | Self::Prefork)
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iterative => "iterative",
            Self::Process => "process",
            Self::Thread => "thread",
            Self::Prethread => "prethread",
            Self::Event => "event",
            Self::Prefork => "prefork",
        })
    }
}

/// Serves connections until SIGTERM or SIGINT, which `signals` must catch (as well as SIGCHLD, where the model has
/// children); then lets transfers finish within the grace period. The outcomes of all connections are in the ledger.
///
/// What a session reported takes effect before its reply is sent, or at the latest before a connection is served that
/// was made after that reply.
///
/// # Errors
/// Where the loop itself fails; never because of a client. The models `process` and `prefork` must be started in a
/// single-threaded process.
pub fn serve<S: Service>(
    model: Model,
    listeners: &[TcpListener],
    service: &S,
    limits: &Limits,
    ledger: &Ledger,
    signals: &Signals,
) -> io::Result<()> {
    if model == Model::Event {
        needs::check(needs::EVENTS).map_err(io::Error::other)?;
    }
    accept::prepare(listeners, limits)?;
    let served = match model {
        Model::Iterative => iterative::serve(listeners, service, limits, ledger, signals),
        Model::Process => process::serve(listeners, service, limits, ledger, signals),
        Model::Thread => thread::serve(listeners, service, limits, ledger, signals),
        Model::Prethread => prethread::serve(listeners, service, limits, ledger, signals),
        Model::Event => event::serve(listeners, service, limits, ledger, signals),
        Model::Prefork => prefork::serve(listeners, service, limits, ledger, signals),
    };
    ledger.close();
    served
}
