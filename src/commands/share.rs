//! `cascade share`: describes files, runs a tracker and a seeding peer, and prints the line to run elsewhere.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Status;
use super::create::describe_beside;
use super::files::{cannot, read_cascade};
use crate::cli::{self, Reporting, Sources};
use crate::confine::{ConfineOptions, Confinement};
use crate::daemon::sockets::Listen;
use crate::events::Events;
use crate::logging::{self, complain, exit_code};
use crate::net::address::{HostPort, ListenAddress, Port};
use crate::node::told::Told;
use crate::node::{self, FileList, FileSpec, Settings, TrackerAddress};
use crate::server::{Limits, Model};
use crate::share::tracker::TrackerPlace;
use crate::share::{Copies, Shared, Sharing};
use crate::store::names::cascade_path;
use crate::store::open_data;
use crate::sys::child::{self, How};
use crate::sys::fork;
use crate::sys::pipe::{Sender, packet_pipe};
use crate::sys::signals::{Signals, is_ignored};
use crate::text::escape_path;

/// Shares files until a signal, or until there are copies enough.
///
/// # Errors
/// Where it cannot begin, or one of its processes ended early.
pub fn run(options: cli::Share) -> anyhow::Result<Status> {
    logging::set_verbose(options.verbose);
    let (files, described) = describe(&options.files);
    if files.is_empty() {
        return Ok(described);
    }
    let tracker = match &options.tracker {
        Some(name) => TrackerPlace::named(name)?,
        None => TrackerPlace::own(&options.tracker_listen, options.advertise)?,
    };
    tracker.warn();
    // One that was started to survive its terminal does.
    let hangup = Some(Signal::SIGHUP).filter(|hangup| !is_ignored(*hangup));
    let awaited = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD];
    let awaited: Vec<_> = awaited.into_iter().chain(hangup).collect();
    let signals = Signals::new(&awaited)?;

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
    let peer_role = start_peer(seeding).context("cannot start the peer")?;
    let copies = options
        .copies
        .map(|copies| {
            Copies::new(
                copies,
                &files,
                tracker.local,
                options.advertise,
                confinement.clone(),
            )
        })
        .transpose()?;

    let mut sharing = Sharing {
        files,
        tracker: tracker.link,
        tracker_role,
        peer_role,
        told,
        copies,
        waiting: Vec::new(),
        port: None,
    };
    let shared = sharing.run(&signals);
    sharing.stop(&signals)?;
    Ok(shared?.max(described))
}

/// Sees to it that each file has a cascade file; says which cannot be shared, and goes on with the others.
fn describe(files: &[PathBuf]) -> (Vec<Shared>, Status) {
    let (mut shared, mut status): (Vec<Shared>, _) = (Vec::new(), Status::Done);
    for data in files {
        match describe_file(data) {
            Ok(file) if shared.iter().any(|other| other.data == file.data) => {}
            Ok(file) => {
                if shared.iter().any(|other| other.name == file.name) {
                    let name = file.name.as_str();
                    log::warn!(
                        "{}: another file has the name {name} as well; whoever gets both needs two directories",
                        escape_path(data)
                    );
                }
                shared.push(file);
            }
            Err(error) => {
                complain(&error);
                status = Status::Failed;
            }
        }
    }
    (shared, status)
}

fn describe_file(data: &Path) -> anyhow::Result<Shared> {
    open_data(data).map_err(|error| cannot("read", data, error))?;
    let name = data.file_name().unwrap_or_default().to_string_lossy();
    let sharing = || {
        format!(
            "cannot share {}: a link cannot carry its name",
            escape_path(data)
        )
    };
    // What is not text has replacement characters now, and is another name.
    ensure!(data.ends_with(&*name), "{}: it is not UTF-8", sharing());
    let name = name.parse().with_context(sharing)?;
    let cascade = cascade_path(data);
    if !cascade.exists() {
        make(data, &cascade)?;
    }
    let described = read_cascade(&cascade)?;
    Ok(Shared {
        data: data.into(),
        name,
        hash: described.hash(),
        geometry: described.geometry(),
        is_printed: false,
        cascade,
    })
}

/// Makes a cascade file in a child: hashing takes threads, and this process forks.
fn make(data: &Path, cascade: &Path) -> anyhow::Result<()> {
    let made = || {
        let name = escape_path(data);
        format!("cannot share {name}: its cascade file cannot be made beside it")
    };
    let body = || exit_code("hashing", describe_beside(data, cascade));
    let pid = fork::spawn_leaf(&[], body).with_context(made)?;
    match child::wait(pid).with_context(made)? {
        How::Exited(0) => Ok(()),
        _ => anyhow::bail!(made()),
    }
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
        vec![ListenAddress::any(0)]
    } else {
        options.listen.clone()
    };
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
        witnessed: options.copies.is_some(),
        seed_for: Duration::ZERO,
        timeout: None,
        vitals: Rc::default(),
        confinement,
    }
}

/// Starts the peer as a process of its own.
fn start_peer(settings: Settings) -> std::io::Result<Pid> {
    use std::os::fd::AsFd;
    let told = settings.told.clone();
    let keep: Vec<_> = told.iter().map(|told| told.as_fd()).collect();
    fork::spawn_role(&keep, &[], |signals| {
        match node::run_as_role(settings, signals) {
            Ok(node::End::Status(status)) => status as u8,
            Ok(node::End::Signal(_)) => 0,
            Err(error) => exit_code("the peer", Err(error)),
        }
    })
}
