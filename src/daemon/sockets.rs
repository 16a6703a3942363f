//! Where a daemon listens: on sockets of its own, or on those that a service manager has passed to it.
//!
//! Sockets that were passed are not ours to close: whoever connects while there is no daemon waits for the next one, and
//! no connection is refused when it is started again.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, ensure};
use nix::sys::socket::{SockType, getsockopt, sockopt};

use crate::exit::UsageError;
use crate::net::address::ListenAddress;
use crate::net::{listen, resolve};
use crate::server::Limits;
use crate::sys::passed;
use crate::text::count;

/// Where to listen.
#[derive(Debug)]
pub enum Listen {
    /// On these addresses.
    At(Vec<ListenAddress>),
    /// On these sockets, which outlive the daemon.
    On(Vec<TcpListener>),
}

impl Listen {
    /// On the sockets that were passed to this process, or else on the addresses that the user names, or else on
    /// another.
    ///
    /// # Errors
    /// Where an address is named at which no socket was passed: nobody would be served there. And where what was passed
    /// is not as it should be.
    pub fn chosen(named: &[ListenAddress], otherwise: ListenAddress) -> anyhow::Result<Self> {
        let passed = passed::sockets().context("cannot take over the sockets of LISTEN_FDS")?;
        if passed.is_empty() {
            return Ok(Self::At(match named {
                [] => vec![otherwise],
                named => named.to_vec(),
            }));
        }
        let sockets: Vec<TcpListener> = passed
            .into_iter()
            .map(listening)
            .collect::<anyhow::Result<_>>()?;
        for address in named {
            if !is_among(address, &sockets)? {
                return Err(UsageError(
                    "--listen names an address, and the sockets of LISTEN_FDS have others: use either",
                )
                .into());
            }
        }
        Ok(Self::On(sockets))
    }

    /// Whether it can be listened there, without listening; says where that is.
    ///
    /// # Errors
    /// As [`listen::check`].
    pub fn check(&self) -> anyhow::Result<String> {
        match self {
            Self::At(addresses) => {
                listen::check(addresses)?;
                let shown: Vec<String> = addresses.iter().map(shown).collect();
                Ok(shown.join(", "))
            }
            Self::On(sockets) => Ok(format!(
                "the {} of LISTEN_FDS",
                count(sockets.len(), "socket")
            )),
        }
    }

    /// Opens the sockets, where that was not done already.
    ///
    /// # Errors
    /// As [`listen::open`].
    pub fn open(self, limits: &mut Limits) -> anyhow::Result<Vec<TcpListener>> {
        match self {
            Self::At(addresses) => Ok(listen::open(&addresses, limits.backlog)?),
            Self::On(sockets) => {
                limits.keeps_listening = true;
                Ok(sockets)
            }
        }
    }
}

fn shown(address: &ListenAddress) -> String {
    match address {
        address if *address == ListenAddress::any(0) => "a free port".into(),
        address => address.to_string(),
    }
}

/// Whether one of these sockets has this address; without a host, every address of the machine.
fn is_among(address: &ListenAddress, sockets: &[TcpListener]) -> anyhow::Result<bool> {
    let port = resolve::port(&address.port)?;
    let hosts = match &address.host {
        Some(host) => resolve::here(host, &address.port)?,
        None => Vec::new(),
    };
    let is_it = |socket: &TcpListener| {
        socket.local_addr().is_ok_and(|local| match address.host {
            Some(_) => hosts.contains(&local),
            None => local.ip().is_unspecified() && local.port() == port,
        })
    };
    Ok(sockets.iter().any(is_it))
}

/// A socket that was passed, if it listens for TCP connections.
fn listening(socket: OwnedFd) -> anyhow::Result<TcpListener> {
    let number = socket.as_raw_fd();
    let what = || format!("cannot listen on descriptor {number} of LISTEN_FDS");
    let kind = getsockopt(&socket, sockopt::SockType).with_context(what)?;
    let listens = getsockopt(&socket, sockopt::AcceptConn).with_context(what)?;
    ensure!(
        kind == SockType::Stream && listens,
        "{}: nobody listens there; a unit with Accept=yes needs --inetd and StandardInput=socket",
        what()
    );
    let listener = TcpListener::from(socket);
    // Of another family, it has no address that we know.
    let address = listener.local_addr();
    ensure!(address.is_ok(), "{}: it is not for TCP", what());
    Ok(listener)
}
