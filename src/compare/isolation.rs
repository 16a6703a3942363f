//! What a crash takes with it: the handler of one connection dies of a SIGSEGV while others are served.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::crashable::Order;
use super::harness::Server;
use super::part::{Complaints, Part, Stop};
use crate::server::Model;

/// Clients that are served when one handler crashes.
pub const CLIENTS: usize = 16;
/// How long a client waits for its echo.
const PATIENCE: Duration = Duration::from_millis(700);
/// How long a server has to serve a new client after the crash.
const RECOVERY: Duration = Duration::from_secs(2);

/// What became of a model's connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Isolation {
    /// The model.
    pub model: String,
    /// Clients that were connected.
    pub clients: usize,
    /// Those that were served before the crash.
    pub served: usize,
    /// Whether the handler crashed as it was asked to.
    pub crashed: bool,
    /// Of the others, those that were served after the crash on the same connection.
    pub survivors: usize,
    /// Whether a new client was served after the crash.
    pub new_served: bool,
}

impl Isolation {
    /// Clients other than the one whose handler crashed.
    pub fn others(&self) -> usize {
        self.clients.saturating_sub(1)
    }

    /// Whether everything was lost.
    pub fn lost_all(&self) -> bool {
        self.survivors == 0 && !self.new_served
    }
}

/// Lets a handler crash under this model.
///
/// # Errors
/// Where a part of the comparison fails other than as it should, or a signal stops it.
pub fn measure(model: Model, stop: &Stop) -> io::Result<Isolation> {
    let order = Order {
        model: model.to_string(),
        token: token()?,
    };
    let mut part = Part::start::<&str>("crashable", &[], Complaints::Kept)?;
    part.order(&order)?;
    let server = Server::of(part, stop)?;
    let mut clients = connect(server.address)?;
    let before = echoed(&mut clients);
    stop.check()?;
    let victim = before.iter().position(|served| *served).unwrap_or(0);
    let crashed = crash(&mut clients.swap_remove(victim), &order.token);
    let survivors = echoed(&mut clients)
        .into_iter()
        .filter(|served| *served)
        .count();
    stop.check()?;
    Ok(Isolation {
        model: order.model,
        clients: CLIENTS,
        served: before.into_iter().filter(|served| *served).count(),
        crashed,
        survivors,
        new_served: serves_a_new_client(server.address),
    })
}

/// A word that nobody can guess.
fn token() -> io::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("crash-{}", hex::encode(bytes)))
}

fn connect(server: SocketAddr) -> io::Result<Vec<TcpStream>> {
    std::iter::repeat_with(|| TcpStream::connect(server))
        .take(CLIENTS)
        .collect()
}

/// Which clients get their line back, in time.
fn echoed(clients: &mut [TcpStream]) -> Vec<bool> {
    const LINE: &[u8] = b"is anybody there?\n";
    // All ask before anybody waits, so that those who wait in vain wait together.
    let asked: Vec<bool> = clients
        .iter_mut()
        .map(|client| client.write_all(LINE).is_ok())
        .collect();
    let deadline = Instant::now() + PATIENCE;
    clients
        .iter_mut()
        .zip(asked)
        .map(|(client, asked)| {
            let mut line = [0; LINE.len()];
            asked && read_until(client, &mut line, deadline) && line == LINE
        })
        .collect()
}

fn read_until(client: &mut TcpStream, line: &mut [u8], deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    // Zero would mean to wait for ever.
    let left = left.max(Duration::from_millis(1));
    client.set_read_timeout(Some(left)).is_ok() && client.read_exact(line).is_ok()
}

/// Asks a handler to crash; says whether its connection ended without an answer.
fn crash(client: &mut TcpStream, token: &str) -> bool {
    let asked = client.write_all(format!("{token}\n").as_bytes()).is_ok();
    let _ = client.set_read_timeout(Some(RECOVERY));
    let ended = match client.read(&mut [0; 64]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    };
    asked && ended
}

fn serves_a_new_client(server: SocketAddr) -> bool {
    let deadline = Instant::now() + RECOVERY;
    while Instant::now() < deadline {
        match TcpStream::connect(server) {
            Ok(client) => {
                if echoed(&mut [client]) == [true] {
                    return true;
                }
            }
            // Nobody listens any more.
            Err(_) => return false,
        }
    }
    false
}
