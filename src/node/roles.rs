//! The roles: processes that the supervisor starts, each from where it begins in its child.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::announcer::{self, Announced};
use super::handover::Handover;
use super::item::Item;
use super::names::Names;
use super::supervisor::fetching;
use super::told::Witnessed;
use super::{FileSpec, Place, Settings, TrackerAddress, metadata};
use crate::confine::{Confinement, Role};
use crate::download::downloader::{self, Ending, Task};
use crate::hash::CascadeHash;
use crate::logging::exit_code;
use crate::net::admission::Admission;
use crate::net::bucket::Bucket;
use crate::net::named::NamedPeers;
use crate::server::{self, Ledger, Limits};
use crate::service::blocks::BlocksService;
use crate::store::atomic;
use crate::sys::fork;

/// How many peers of a file are asked at the same time: in a swarm each has something that the others lack, and a
/// worker mostly waits. A tracker names as many at once.
const SPREAD: usize = 20;
/// Set by the laboratory of benches/swarm, to see what a swarm is like without the extension.
const WITHOUT_MAPS: &str = "CASCADE_WITHOUT_MAPS";

/// Serves the blocks of all files on all sockets.
pub fn start_listener(
    place: &Place,
    items: &[Item],
    handover: &Handover,
    settings: &Settings,
    limits: &Limits,
    ledger: &Ledger,
    admission: &Admission,
) -> io::Result<Pid> {
    let mut keep: Vec<_> = place.listeners.iter().map(AsFd::as_fd).collect();
    keep.push(handover.receiving());
    // To read: nothing that can be written goes to who faces strangers.
    keep.extend(
        items
            .iter()
            .flat_map(|item| [item.meta.as_fd(), item.data.reading().as_fd()]),
    );
    let witness = settings.told.as_ref().filter(|_| settings.witnessed);
    keep.extend(witness.map(|told| told.as_fd()));
    let model = settings.model;
    let role = Role::Server {
        threads: model.has_threads(),
        tables: false,
        tells: None,
    };
    fork::spawn_role(&keep, &[Signal::SIGHUP], |signals| {
        exit_code(
            "the listener",
            (|| {
                let signals = match settings.vitals.pulse() {
                    Some(pulse) => pulse.watch(signals)?,
                    None => signals,
                };
                only_look(items, admission).context("cannot serve")?;
                settings.confinement.enter(role)?;
                let blocks = BlocksService::new(items.iter().map(Item::served))
                    .with_news(handover)
                    .noting(Arc::clone(&handover.read_errors));
                let listeners = &place.listeners;
                match witness {
                    None => server::serve(model, listeners, &blocks, limits, ledger, &signals),
                    Some(to) => {
                        let to = Arc::clone(to);
                        let service = Witnessed { blocks, to };
                        server::serve(model, listeners, &service, limits, ledger, &signals)
                    }
                }
                .context("cannot serve")?;
                log::debug!("served {}", ledger.tally());
                Ok(())
            })(),
        )
    })
}

/// What is present of the files, and who may be connected to, is for others to say.
fn only_look(items: &[Item], admission: &Admission) -> io::Result<()> {
    admission.protect()?;
    items.iter().try_for_each(|item| {
        item.present.protect()?;
        item.stamp.protect()
    })
}

/// Subscribes to one tracker, again and again, and hands on the peers that it names.
pub fn start_announcer(
    (number, tracker): (usize, &TrackerAddress),
    place: &Place,
    items: &[Item],
    confinement: &Confinement,
    admission: &Admission,
    names: Option<&Names>,
) -> io::Result<Pid> {
    let found = items.iter().filter_map(|item| item.found.as_ref());
    let listeners = place.listeners.iter().map(AsFd::as_fd);
    let keep: Vec<_> = listeners
        .chain(found.map(|(sender, _)| sender.as_fd()))
        .chain(names.map(AsFd::as_fd))
        .collect();
    let announced = items.iter().filter(|item| item.announced);
    let announced = announced.filter_map(|item| {
        let (found, _) = item.found.as_ref()?;
        Some(Announced {
            name: &item.name,
            hash: item.hash,
            present: &item.present,
            progress: &item.progress,
            found,
        })
    });
    let announced: Vec<Announced<'_>> = announced.collect();
    fork::spawn_leaf(&keep, || {
        let begun = only_look(items, admission).context("cannot announce files");
        match begun.and_then(|()| ask_one(tracker, confinement)) {
            Ok(()) => announcer::run(tracker, number, place, announced, names),
            Err(error) => exit_code("an announcer", Err(error)),
        }
    })
}

/// Searches for cascade files until one is there; it hears of the others' end when it is started again.
pub fn start_fetcher(
    files: &[FileSpec],
    settings: &Settings,
    trackers: &[TrackerAddress],
    peers: &NamedPeers,
    admission: &Admission,
) -> io::Result<Pid> {
    fork::spawn_role(&[], &[], |signals| {
        fork::reseed();
        match metadata::obtain_any(files, settings, trackers, peers, admission, &signals) {
            Ok(true) => fetching::FOUND,
            Ok(false) => fetching::NOTHING,
            Err(error) => {
                crate::logging::complain(&error);
                fetching::NOTHING
            }
        }
    })
}

/// From now on this process asks the tracker, and nobody else.
fn ask_one(tracker: &TrackerAddress, confinement: &Confinement) -> anyhow::Result<()> {
    let ports: Vec<u16> = tracker.addresses.iter().map(SocketAddr::port).collect();
    confinement.enter(Role::Announcer { ports: &ports })
}

/// Takes this node off a tracker's lists for these files, in a process that ends within a second or so; nothing where it is on none.
pub fn start_farewell(
    tracker: &TrackerAddress,
    place: &Place,
    hashes: &[CascadeHash],
    confinement: &Confinement,
) -> io::Result<Option<Pid>> {
    if place.listeners.is_empty() || hashes.is_empty() {
        return Ok(None);
    }
    let keep: Vec<_> = place.listeners.iter().map(AsFd::as_fd).collect();
    let farewell = || match ask_one(tracker, confinement) {
        Ok(()) => announcer::leave(tracker, place, hashes),
        Err(error) => exit_code("unsubscribing", Err(error)),
    };
    fork::spawn_leaf(&keep, farewell).map(Some)
}

/// Downloads what is missing of a file.
pub fn start_downloader(
    item: &Item,
    peers: &NamedPeers,
    settings: &Settings,
    limit: Option<&Bucket>,
    admission: &Arc<Admission>,
) -> io::Result<Pid> {
    fork::spawn_role(&item.descriptors(), &[], |signals| {
        let directory = atomic::directory_of(item.data.path());
        let begun = item.load().and_then(|cascade| {
            let directory = &directory;
            settings.confinement.enter(Role::Downloader { directory })?;
            Ok(cascade)
        });
        let cascade = match begun {
            Ok(cascade) => cascade,
            Err(error) => {
                crate::logging::complain(&error);
                return Ending::Failed as u8;
            }
        };
        let task = Task {
            hash: item.hash,
            cascade: &cascade,
            data: &item.data,
            present: &item.present,
            progress: &item.progress,
            peers,
            found: item.found.as_ref().map(|(_, receiver)| receiver),
            admission,
            limit,
            timeout: settings.timeout,
            arrived: item.turn.arrived,
            events: &settings.events,
            patient: settings.daemon,
            // Who says how many workers there are means it.
            spread: settings.sources.workers.map_or(SPREAD, |_| 0),
            maps: std::env::var_os(WITHOUT_MAPS).is_none(),
            confinement: &settings.confinement,
        };
        downloader::run(&task, &signals) as u8
    })
}
