//! Listening sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockopt, listen,
    setsockopt, socket, sockopt,
};

use super::address::ListenAddress;
use super::resolve;

/// How long a killed server's children may take to end, and how often is tried meanwhile whether they have.
const ENDING: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(20);
/// How often a free port is looked for that is free for IPv4 and IPv6.
const ATTEMPTS: usize = 16;

/// Opens the sockets that these addresses name: for a bare port one of each family that the machine has, on the same
/// port, IPv4 first. At each of them `backlog` connections may wait to be accepted, as far as the system allows.
///
/// # Errors
/// Where an address cannot be resolved or is in use; the message names it.
pub fn open(addresses: &[ListenAddress], backlog: u16) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let opened = match &address.host {
            Some(host) => {
                let resolved = resolve::here(host, &address.port)?;
                patiently(|| open_all(&resolved, backlog))
            }
            None => {
                let port = resolve::port(&address.port)?;
                patiently(|| open_any(port, backlog))
            }
        };
        listeners.extend(opened.map_err(|error| context(error, address))?);
    }
    Ok(listeners)
}

/// Whether these addresses can be had at all: they have names that can be resolved, and are this machine's. Whether
/// their ports are free now is not looked at: a server that runs has them.
///
/// # Errors
/// Where they cannot; the message names the address.
pub fn check(addresses: &[ListenAddress]) -> io::Result<()> {
    for address in addresses {
        let Some(host) = &address.host else {
            resolve::port(&address.port)?;
            continue;
        };
        for mut resolved in resolve::here(host, &address.port)? {
            resolved.set_port(0);
            TcpListener::bind(resolved).map_err(|error| context(error, address))?;
        }
    }
    Ok(())
}

/// Tries again for a moment where an address is in use: the children of a server that was killed end with it, but not in
/// the same instant, and whoever starts it again does so at once.
fn patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let end = Instant::now() + ENDING;
    loop {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                thread::sleep(AGAIN);
            }
            other => return other,
        }
    }
}

fn context(error: io::Error, address: &ListenAddress) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "; does another server run there? choose another port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 are for root: choose a higher one",
        io::ErrorKind::AddrNotAvailable => "; it is no address of this machine",
        _ => "",
    };
    let reason = format!("cannot listen on {address}: {error}{advice}");
    io::Error::new(error.kind(), reason)
}

fn open_all(addresses: &[SocketAddr], backlog: u16) -> io::Result<Vec<TcpListener>> {
    addresses
        .iter()
        .map(|address| open_one(*address, backlog))
        .collect()
}

/// The wildcard addresses of both families, on one port.
fn open_any(port: u16, backlog: u16) -> io::Result<Vec<TcpListener>> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        let v4 = match open_one((Ipv4Addr::UNSPECIFIED, port).into(), backlog) {
            Ok(listener) => Some(listener),
            Err(error) if lacks_family(&error) => None,
            Err(error) => return Err(error),
        };
        let shared = v4
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()?
            .map_or(port, |address| address.port());
        match open_one((Ipv6Addr::UNSPECIFIED, shared).into(), backlog) {
            Ok(v6) => return Ok(v4.into_iter().chain([v6]).collect()),
            Err(error) if lacks_family(&error) => return v4.map(|v4| vec![v4]).ok_or(error),
            // Somebody has the port that IPv4 got for IPv6: another one, if the choice is ours.
            Err(error) if port == 0 => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn lacks_family(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL | Errno::EPROTONOSUPPORT)
    )
}

fn open_one(address: SocketAddr, backlog: u16) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own, whatever the machine's default is.
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(
        &fd,
        Backlog::new(i32::from(backlog)).unwrap_or(Backlog::MAXCONN),
    )?;
    Ok(TcpListener::from(fd))
}

/// Opens those sockets again that were shut down, at the addresses that they had: the system does not keep a port that
/// it chose itself.
///
/// # Errors
/// Where a port was taken meanwhile.
pub fn again(
    listeners: &mut [TcpListener],
    addresses: &[SocketAddr],
    backlog: u16,
) -> io::Result<()> {
    for (listener, address) in listeners.iter_mut().zip(addresses) {
        if !getsockopt(listener, sockopt::AcceptConn)? {
            // The old socket may still have the port; it does not listen, so that both can have it.
            *listener = open_one(*address, backlog)?;
        }
    }
    Ok(())
}

/// The port that these listeners have, for peers that will be told of it; they share it where the user left the
/// choice to us.
pub fn port_of(listeners: &[TcpListener]) -> Option<u16> {
    listeners
        .iter()
        .find_map(|listener| listener.local_addr().ok())
        .map(|address| address.port())
}

/// Where others reach these listeners that see this machine as `ip`: on a socket for every address or for that one; or
/// else on another IPv4 address that is listened on.
pub fn reachable_at(listeners: &[TcpListener], ip: Ipv4Addr) -> Option<SocketAddrV4> {
    let bound = || {
        listeners
            .iter()
            .filter_map(|listener| match listener.local_addr() {
                Ok(SocketAddr::V4(address)) => Some(address),
                // One for both families, which only others open: see `open_one`.
                Ok(SocketAddr::V6(address)) if address.ip().is_unspecified() => {
                    let only_v6 = getsockopt(listener, sockopt::Ipv6V6Only).unwrap_or(true);
                    let v4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, address.port());
                    (!only_v6).then_some(v4)
                }
                _ => None,
            })
    };
    let covers = bound().find(|address| address.ip().is_unspecified() || *address.ip() == ip);
    covers
        .map(|address| SocketAddrV4::new(ip, address.port()))
        .or_else(|| bound().next())
}
