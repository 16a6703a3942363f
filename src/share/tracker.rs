//! The tracker of a share: ours or another's, and how it is reached, from here and from elsewhere.

use std::hash::RandomState;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Context;
use nix::unistd::Pid;

use crate::cli;
use crate::confine::{Confinement, Role};
use crate::hash::CascadeHash;
use crate::logging::{self, exit_code};
use crate::net::address::{Advertised, HostPort, ListenAddress, Port};
use crate::net::{listen, reach, resolve};
use crate::node::TrackerAddress;
use crate::server::{self, Ledger, Limits, Model};
use crate::service::tracker::TrackerService;
use crate::sys::fork;
use crate::sys::signals::Signals;
use crate::tracker::policy::Policy;
use crate::tracker::registry::{Registry, Tracked};

/// Room for so many peers.
const PEERS: u32 = 65_536;
/// After so many seconds a peer is forgotten (PROTOCOL §2).
const TTL: u32 = 1800;
/// How long a tracker on this host is given to show that it listens on another address as well.
const CONNECT: Duration = Duration::from_secs(1);

/// Where a tracker is.
#[derive(Debug)]
pub struct TrackerPlace {
    /// Its sockets, where it is ours.
    pub listeners: Vec<TcpListener>,
    /// How others reach it.
    pub link: HostPort,
    /// How this host does.
    pub local: TrackerAddress,
}

impl TrackerPlace {
    /// A tracker of our own: there, or at the usual port, or at any.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub fn own(listen: &[ListenAddress], advertise: Option<Advertised>) -> anyhow::Result<Self> {
        let backlog = Limits::default().backlog;
        let open = |addresses: &[ListenAddress]| listen::open(addresses, backlog);
        let listeners = if listen.is_empty() {
            let usual = open(&[ListenAddress::any(cli::TRACKER_PORT)]);
            usual.or_else(|_| open(&[ListenAddress::any(0)]))?
        } else {
            open(listen)?
        };
        let first = listeners.first().context("cannot listen")?.local_addr()?;
        let ip = if first.ip().is_unspecified() {
            reach::own_address().into()
        } else {
            first.ip()
        };
        let local = SocketAddr::new(ip, first.port());
        let elsewhere = advertise.map_or(ip, |advertised| advertised.address.into());
        Ok(Self {
            listeners,
            link: at(SocketAddr::new(elsewhere, first.port())),
            local: address(local),
        })
    }

    /// A tracker that somebody runs. Where it is on this host, and was named by a loopback address, it goes by the
    /// address at which others reach it, if it listens there: both in links and to the peer, which subscribes with the
    /// address that it comes from.
    ///
    /// # Errors
    /// Where its name cannot be resolved.
    pub fn named(name: &HostPort) -> anyhow::Result<Self> {
        let addresses = resolve::apart(name)?;
        let first = addresses
            .first()
            .with_context(|| format!("cannot resolve {name}"))?;
        let named = HostPort {
            host: name.host.clone(),
            port: Port::Number(first.port()),
        };
        let here = addresses.iter().all(|address| address.ip().is_loopback());
        let own = SocketAddr::new(reach::own_address().into(), first.port());
        if here && !own.ip().is_loopback() && TcpStream::connect_timeout(&own, CONNECT).is_ok() {
            return Ok(Self {
                listeners: Vec::new(),
                link: at(own),
                local: address(own),
            });
        }
        let mut addresses = addresses;
        addresses.sort_by_key(SocketAddr::is_ipv6);
        Ok(Self {
            listeners: Vec::new(),
            link: named,
            local: TrackerAddress {
                name: name.to_string(),
                addresses,
            },
        })
    }

    /// Says what keeps others away.
    pub fn warn(&self) {
        let loopback = match self.link.host.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback(),
            Err(_) => self.link.host == "localhost",
        };
        if loopback {
            let link = &self.link;
            log::warn!("the tracker is at {link}: only this host can use the link");
        }
    }

    /// Names the other addresses of this host, where its user did not choose one.
    pub fn name_others(&self, advertise: Option<Advertised>) {
        let listens_on_all = self.listeners.iter().any(|listener| {
            listener
                .local_addr()
                .is_ok_and(|local| local.ip().is_unspecified())
        });
        let (true, None, Ok(own)) = (listens_on_all, advertise, self.link.host.parse()) else {
            return;
        };
        let others = reach::other_addresses(own);
        if !others.is_empty() {
            let others: Vec<String> = others.iter().map(ToString::to_string).collect();
            logging::tell(&format!(
                "this host has other addresses, too: {}; where {own} cannot be reached, use --advertise with one of them",
                others.join(", ")
            ));
        }
    }

    /// Starts our own tracker for these files; nothing where it is another's.
    ///
    /// # Errors
    /// As fork(2).
    pub fn start(
        &self,
        hashes: &[CascadeHash],
        confinement: &Confinement,
    ) -> io::Result<Option<Pid>> {
        if self.listeners.is_empty() {
            return Ok(None);
        }
        let keep: Vec<_> = self.listeners.iter().map(AsFd::as_fd).collect();
        let life = |signals| exit_code("the tracker", self.serve(hashes, confinement, &signals));
        fork::spawn_role(&keep, &[], life).map(Some)
    }

    /// The tracker's whole life. Its process makes the registry: no other could write it.
    fn serve(
        &self,
        hashes: &[CascadeHash],
        confinement: &Confinement,
        signals: &Signals,
    ) -> anyhow::Result<()> {
        let policy = Policy {
            tracked: Tracked::Named(hashes.iter().copied().collect()),
            good_ips: Default::default(),
            ban_private: false,
            described: Default::default(),
        };
        let registry = Registry::new(PEERS, TTL, &policy.tracked, RandomState::new())
            .context("cannot make room for peers")?;
        let service = TrackerService::new(policy, registry);
        let (limits, ledger) = (Limits::default(), Ledger::new()?);
        confinement.enter(Role::Server {
            threads: false,
            tables: false,
            tells: None,
        })?;
        let (model, listeners) = (Model::Process, &self.listeners);
        server::serve(model, listeners, &service, &limits, &ledger, signals).context("cannot serve")
    }
}

fn at(address: SocketAddr) -> HostPort {
    HostPort {
        host: address.ip().to_string(),
        port: Port::Number(address.port()),
    }
}

fn address(address: SocketAddr) -> TrackerAddress {
    TrackerAddress {
        name: address.to_string(),
        addresses: vec![address],
    }
}
