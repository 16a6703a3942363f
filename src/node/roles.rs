//! The processes that the supervisor starts, each as it begins in its child.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::announcer::{self, Announced};
use super::handover::Handover;
use super::item::Item;
use super::{Place, Settings, TrackerAddress};
use crate::cascade_file::CascadeFile;
use crate::download::downloader::{self, Ending, Task};
use crate::download::progress::Figure;
use crate::hash::CascadeHash;
use crate::net::bucket::Bucket;
use crate::server::{self, Ledger, Limits, Model};
use crate::service::blocks::BlocksService;
use crate::store::verify;
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
    model: Model,
    limits: &Limits,
    ledger: &Ledger,
) -> io::Result<Pid> {
    let mut keep: Vec<_> = place.listeners.iter().map(AsFd::as_fd).collect();
    keep.push(handover.receiving());
    keep.extend(items.iter().flat_map(Item::descriptors));
    fork::spawn_role(&keep, &[Signal::SIGHUP], |signals| {
        let service = BlocksService::new(items.iter().map(Item::served));
        let service = service.with_news(handover);
        match server::serve(model, &place.listeners, &service, limits, ledger, &signals) {
            Ok(()) => {
                log::debug!("served {}", ledger.tally());
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
    fork::spawn_leaf(&keep, || announcer::run(tracker, place, announced))
}

/// Takes this node off a tracker's lists for these files, in a process that ends within a second or so; nothing where it is on none.
pub fn start_farewell(
    tracker: &TrackerAddress,
    place: &Place,
    hashes: &[CascadeHash],
) -> io::Result<Option<Pid>> {
    if place.listeners.is_empty() {
        return Ok(None);
    }
    let keep: Vec<_> = place.listeners.iter().map(AsFd::as_fd).collect();
    fork::spawn_leaf(&keep, || announcer::leave(tracker, place, hashes)).map(Some)
}

/// Verifies what is there of a file, on all cores. It has threads, and forks nothing.
pub fn start_verifier(item: &Item) -> io::Result<Pid> {
    fork::spawn_leaf(&item.descriptors(), || {
        let observer = |bytes: u64| {
            item.progress.add(Figure::Checked, bytes);
            ControlFlow::Continue(())
        };
        let verified = item
            .load()
            .and_then(|cascade| verify_item(item, &cascade, &observer));
        report(verified)
    })
}

/// Verifies all blocks; and where all of a file are right that has its final name already, the whole.
fn verify_item(
    item: &Item,
    cascade: &CascadeFile,
    observer: verify::Observer<'_>,
) -> anyhow::Result<()> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let reading = || format!("cannot read {}", item.name);
    let data = item.data.reading();
    verify::verify(data, cascade, &item.present, threads, observer).with_context(reading)?;
    if item.data.is_named() && item.present.is_full() && !item.edited {
        let hash = verify::hash_file(data, item.geometry.length(), &verify::unobserved)
            .with_context(reading)?;
        if hash != cascade.file_hash() {
            // Whoever made the cascade file made it of two files, or lied.
            item.present.clear_all();
            anyhow::bail!(
                "cannot use {}: every block is right, but the file as a whole is not what its cascade file says",
                item.name
            );
        }
    }
    Ok(())
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
    settings: &Settings,
    limit: Option<&Bucket>,
) -> io::Result<Pid> {
    fork::spawn_role(&item.descriptors(), &[], |signals| {
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
            limit,
            timeout: settings.timeout,
            arrived: item.turn.arrived,
            patient: settings.daemon,
            // Who says how many workers there are means it.
            spread: settings.sources.workers.map_or(SPREAD, |_| 0),
            maps: std::env::var_os(WITHOUT_MAPS).is_none(),
        };
        downloader::run(&task, &signals) as u8
    })
}
