//! `cascade share`: describes files, runs a tracker and a seeding peer, and prints the line to run elsewhere.

mod describe;

use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Status;
use crate::cli::{self, Reporting, Sources};
use crate::confine::{ConfineOptions, Confinement};
use crate::daemon::sockets::Listen;
use crate::events::Events;
use crate::logging::{self, exit_code};
use crate::net::address::{HostPort, ListenAddress, Port};
use crate::net::listen;
use crate::node::told::Told;
use crate::node::{self, FileList, FileSpec, Hashed, Settings, TrackerAddress};
use crate::server::{Limits, Model};
use crate::share::tracker::TrackerPlace;
use crate::share::{Copies, Shared, Sharing, Traffic, View};
use crate::sys::fork;
use crate::sys::pipe::{Sender, packet_pipe};
use crate::sys::signals::{Signals, is_ignored};

/// Shares files until a signal, or until there are copies enough.
///
/// # Errors
/// Where it cannot begin, or one of its processes ended early.
pub fn run(options: cli::Share) -> anyhow::Result<Status> {
    logging::set_verbose(options.verbose);
    let (files, described) = describe::describe(&options)?;
    if files.is_empty() {
        return Ok(described);
    }
    let tracker = match &options.tracker {
        Some(name) => TrackerPlace::named(name)?,
        None => TrackerPlace::own(&options.tracker_listen, options.advertise)?,
    };
    tracker.warn();
    tracker.name_others(options.advertise);
    // One that was started to survive its terminal does.
    let hangup = Some(Signal::SIGHUP).filter(|hangup| !is_ignored(*hangup));
    let awaited = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD];
    let awaited: Vec<_> = awaited.into_iter().chain(hangup).collect();
    let signals = Signals::new(&awaited)?;
    // The log of all processes goes through this, so that it comes before them.
    let view = View::new(&files, Events::new(options.json)?, options.json);

    let confinement = Confinement::new(&ConfineOptions::default())?;
    let hashes: Vec<_> = files.iter().map(|file| file.hash).collect();
    let tracker_role = tracker
        .start(&hashes, &confinement)
        .context("cannot start the tracker")?;
    let (teller, told) = packet_pipe()?;
    let seeding = seeding(
        &options,
        &files,
        &tracker.local,
        teller,
        confinement.clone(),
    );
    let peer_role = start_peer(seeding, &files).context("cannot start the peer")?;
    let copies = Copies::new(
        options.copies,
        &files,
        tracker.local,
        options.advertise,
        confinement,
    )?;

    let mut sharing = Sharing {
        files,
        tracker: tracker.link,
        tracker_role,
        peer_role,
        told,
        copies,
        traffic: Traffic::new(Instant::now()),
        view,
        timeout: options.timeout,
        waiting: Vec::new(),
        port: None,
    };
    let shared = sharing.run(&signals);
    sharing.stop(&signals)?;
    Ok(shared?.max(described))
}

/// A node that seeds these files and nothing else.
fn seeding(
    options: &cli::Share,
    files: &[Shared],
    tracker: &TrackerAddress,
    teller: Sender<Told>,
    confinement: Confinement,
) -> Settings {
    let file = |file: &Shared| FileSpec {
        cascade: file.cascade.clone(),
        data: file.data.clone(),
        hash: None,
        tracker: None,
    };
    let address = |address: &std::net::SocketAddr| HostPort {
        host: address.ip().to_string(),
        port: Port::Number(address.port()),
    };
    let listen = if options.listen.is_empty() {
        vec![usual_port()]
    } else {
        options.listen.clone()
    };
    let hashed = files.iter().filter_map(|file| {
        let (hash, file) = (file.hash, file.hashed?);
        Some(Hashed { hash, file })
    });
    Settings {
        files: FileList {
            named: files.iter().map(file).collect(),
            watch: None,
        },
        files_again: None,
        sources: Sources {
            tracker: tracker.addresses.first().map(address).into_iter().collect(),
            upload_limit: options.upload_limit,
            upload_slots: options.upload_slots,
            advertise: options.advertise,
            ..Sources::default()
        },
        reporting: Reporting {
            quiet: true,
            ..Reporting::default()
        },
        events: Events::default(),
        listen: Some(Listen::At(listen)),
        model: Model::default(),
        limits: Limits::default(),
        daemon: true,
        seed_only: true,
        control: None,
        told: Some(Arc::new(teller)),
        hashed: hashed.collect(),
        witnessed: true,
        seed_for: Duration::ZERO,
        timeout: None,
        vitals: Rc::default(),
        confinement,
    }
}

/// The usual port, so that a firewall can let it through; or any, where that is taken.
fn usual_port() -> ListenAddress {
    let usual = ListenAddress::any(cli::PEER_PORT);
    match listen::check(std::slice::from_ref(&usual)) {
        Ok(()) => usual,
        Err(_) => ListenAddress::any(0),
    }
}

/// Starts the peer as a process of its own.
fn start_peer(settings: Settings, files: &[Shared]) -> std::io::Result<Pid> {
    let told = settings.told.clone();
    let in_memory = files.iter().filter_map(|file| file.in_memory.as_deref());
    let keep: Vec<_> = told
        .iter()
        .map(|told| told.as_fd())
        .chain(in_memory.map(AsFd::as_fd))
        .collect();
    fork::spawn_role(&keep, &[], |signals| {
        match node::run_as_role(settings, signals) {
            Ok(node::End::Status(status)) => status as u8,
            Ok(node::End::Signal(_)) => 0,
            Err(error) => exit_code("the peer", Err(error)),
        }
    })
}
