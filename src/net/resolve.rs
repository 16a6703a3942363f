//! Names to addresses, by getaddrinfo(3).
//!
//! A process that serves or forks does not resolve names: it blocks for as long as a name server likes, and the
//! resolver maps libraries that make every later fork dearer. So [`apart`] asks in a child.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo, getnameinfo};

use super::address::{HostPort, Port};
use crate::sys::child;
use crate::sys::fork;

/// How many children are asked at the most.
const ATTEMPTS: usize = 3;

/// The addresses of a host and port, in the system's order, asked in this process.
///
/// # Errors
/// Where the name is not known; the message says what could not be resolved.
pub fn here(host: &str, port: &Port) -> io::Result<Vec<SocketAddr>> {
    if let (Ok(ip), Port::Number(port)) = (host.parse::<IpAddr>(), port) {
        return Ok(vec![SocketAddr::new(ip, *port)]);
    }
    let target = HostPort {
        host: host.into(),
        port: port.clone(),
    };
    look_up(Some(host), port).map_err(|reason| reason.about(&target.to_string()))
}

/// Whether a name that could not be looked up may be known in a moment: the name server does not answer.
pub fn is_temporary(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NetworkUnreachable
}

/// Why a name has no address.
struct Failure {
    temporary: bool,
    reason: String,
}

impl Failure {
    fn about(&self, what: &str) -> io::Error {
        let error = not_found(what, &self.reason);
        if self.temporary {
            return io::Error::new(io::ErrorKind::NetworkUnreachable, error.to_string());
        }
        error
    }
}

/// The number of a port.
///
/// # Errors
/// Where the service is not known.
pub fn port(port: &Port) -> io::Result<u16> {
    if let Port::Number(number) = port {
        return Ok(*number);
    }
    let addresses = look_up(None, port).map_err(|reason| reason.about(&port.to_string()))?;
    addresses
        .first()
        .map(SocketAddr::port)
        .ok_or_else(|| not_found(&port.to_string(), "no address"))
}

/// The name that belongs to an address, asked in this process; nothing where there is none.
pub fn name_of(address: SocketAddr) -> Option<String> {
    let (name, _) = getnameinfo(&address, libc::NI_NAMEREQD).ok()?;
    Some(name)
}

/// As [`here`], but names are looked up in a child process.
///
/// # Errors
/// As [`here`], and where no child can be made.
pub fn apart(target: &HostPort) -> io::Result<Vec<SocketAddr>> {
    if let (Ok(ip), Port::Number(port)) = (target.host.parse::<IpAddr>(), &target.port) {
        return Ok(vec![SocketAddr::new(ip, *port)]);
    }
    // A child that was killed has said nothing; then another is asked.
    let mut text = ask_child(target)?;
    for _ in 1..ATTEMPTS {
        if text.is_empty() {
            text = ask_child(target)?;
        }
    }
    match text.split_once('\n') {
        Some(("found", addresses)) => Ok(addresses
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect()),
        Some((kind, reason)) => Err(io::Error::new(
            match kind {
                "later" => io::ErrorKind::NetworkUnreachable,
                _ => io::ErrorKind::NotFound,
            },
            reason.trim_end().to_owned(),
        )),
        None => Err(not_found(&target.to_string(), "the resolver ended")),
    }
}

/// What a child says.
fn ask_child(target: &HostPort) -> io::Result<String> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let pid = fork::spawn_leaf(&[theirs.as_fd()], || answer(&theirs, target))?;
    drop(theirs);
    let mut text = String::new();
    let read = ours.read_to_string(&mut text);
    let _ = child::wait(pid);
    read?;
    Ok(text)
}

/// The child of [`apart`].
fn answer(mut to: &UnixStream, target: &HostPort) -> u8 {
    let text = match here(&target.host, &target.port) {
        Ok(addresses) => addresses
            .iter()
            .fold("found\n".to_owned(), |text, address| {
                format!("{text}{address}\n")
            }),
        Err(error) if is_temporary(&error) => format!("later\n{error}"),
        Err(error) => format!("error\n{error}"),
    };
    to.write_all(text.as_bytes()).is_err().into()
}

fn look_up(host: Option<&str>, port: &Port) -> Result<Vec<SocketAddr>, Failure> {
    let hints = AddrInfoHints {
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    let service = port.to_string();
    let found = getaddrinfo(host, Some(&service), Some(hints)).map_err(|error| {
        let temporary = matches!(
            error.kind(),
            LookupErrorKind::Again | LookupErrorKind::Fail | LookupErrorKind::System
        );
        let text = io::Error::from(error).to_string();
        let reason = text.replace("failed to lookup address information: ", "");
        Failure { temporary, reason }
    })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for info in found.flatten() {
        if !addresses.contains(&info.sockaddr) {
            addresses.push(info.sockaddr);
        }
    }
    if addresses.is_empty() {
        Err(Failure {
            temporary: false,
            reason: "it has no address".into(),
        })
    } else {
        Ok(addresses)
    }
}

fn not_found(what: &str, reason: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("cannot resolve {what}: {reason}"),
    )
}
