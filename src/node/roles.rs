//! The processes that the supervisor starts, each as it begins in its child.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::unistd::Pid;

use super::announcer::{self, Announced};
use super::item::Item;
use super::{Place, TrackerAddress};
use crate::download::downloader::{self, Ending, Task};
use crate::download::progress::Figure;
use crate::hash::CascadeHash;
use crate::server::{self, Limits, Model};
use crate::service::blocks::BlocksService;
use crate::store::verify;
use crate::sys::fork;

/// Serves the blocks of all files on all sockets.
pub fn start_listener(
    place: &Place,
    items: &[Item],
    model: Model,
    limits: &Limits,
) -> io::Result<Pid> {
    let service = BlocksService::new(items.iter().map(Item::served));
    let mut keep: Vec<_> = place.listeners.iter().map(AsFd::as_fd).collect();
    keep.extend(items.iter().flat_map(Item::descriptors));
    fork::spawn_role(&keep, |signals| {
        match server::serve(model, &place.listeners, &service, limits, &signals) {
            Ok(tally) => {
                log::debug!("served {tally}");
                0
            }
            Err(error) => {
                crate::logging::complain(&anyhow::anyhow!("cannot serve: {error}"));
                1
            }
        }
    })
}

/// Subscribes to one tracker, again and again, and hands on the peers that it names.
pub fn start_announcer(tracker: &TrackerAddress, place: &Place, items: &[Item]) -> io::Result<Pid> {
    let keep: Vec<_> = place
        .listeners
        .iter()
        .map(AsFd::as_fd)
        .chain(items.iter().flat_map(Item::descriptors))
        .collect();
    let announced = items.iter().filter_map(|item| {
        let (found, _) = item.found.as_ref()?;
        Some(Announced {
            name: &item.name,
            hash: item.hash,
            present: &item.present,
            found,
        })
    });
    let announced: Vec<Announced<'_>> = announced.collect();
    fork::spawn_leaf(&keep, || announcer::run(tracker, place, announced))
}

/// Takes this node off a tracker's lists, in a process that ends within a second or so; nothing where it is on none.
pub fn start_farewell(
    tracker: &TrackerAddress,
    place: &Place,
    items: &[Item],
) -> io::Result<Option<Pid>> {
    if place.listeners.is_empty() {
        return Ok(None);
    }
    let keep: Vec<_> = place.listeners.iter().map(AsFd::as_fd).collect();
    let hashes: Vec<CascadeHash> = items.iter().map(|item| item.hash).collect();
    fork::spawn_leaf(&keep, || announcer::leave(tracker, place, &hashes)).map(Some)
}

/// Verifies what is there of a file, on all cores. It has threads, and forks nothing.
pub fn start_verifier(item: &Item) -> io::Result<Pid> {
    fork::spawn_leaf(&item.descriptors(), || {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let observer = |bytes: u64| {
            item.progress.add(Figure::Checked, bytes);
            ControlFlow::Continue(())
        };
        let verified = item.load().and_then(|cascade| {
            verify::verify(
                item.data.reading(),
                &cascade,
                &item.present,
                threads,
                &observer,
            )
            .map_err(|error| anyhow::anyhow!("cannot read {}: {error}", item.name))
        });
        report(verified)
    })
}

fn report(result: anyhow::Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            crate::logging::complain(&error);
            1
        }
    }
}

/// Downloads what is missing of a file.
pub fn start_downloader(
    item: &Item,
    peers: &[SocketAddr],
    timeout: Option<Duration>,
    patient: bool,
) -> io::Result<Pid> {
    fork::spawn_role(&item.descriptors(), |signals| {
        let cascade = match item.load() {
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
            timeout,
            patient,
        };
        downloader::run(&task, &signals) as u8
    })
}
