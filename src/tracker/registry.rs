//! The registry of peers, as its owner sees it, who is the only writer.
//!
//! Every operation takes a bounded time, however much is registered; expired records are removed a few at a time.
//! Readers have a [`View`]. Time (in seconds since the Unix epoch) is an argument.
//!
//! ```
//! use std::hash::RandomState;
//! use std::net::{Ipv4Addr, SocketAddrV4};
//!
//! use cascade::hash::CascadeHash;
//! use cascade::tracker::registry::{Registry, Tracked};
//! use cascade::wire::tracker::NOBODY;
//!
//! // Room for 100 peers, each forgotten 60 seconds after it was seen.
//! let mut registry = Registry::new(100, 60, &Tracked::Any, RandomState::new())?;
//! let hash = CascadeHash::of(b"a cascade file");
//! let address = Ipv4Addr::new(192, 0, 2, 1);
//! let peer = SocketAddrV4::new(address, 9000);
//! registry.subscribe(&hash, peer, address.into(), false, 1_000).expect("there is room");
//!
//! // Whoever has a view sees what the owner does, in a process of its own too.
//! let view = registry.view();
//! let mut random = fastrand::Rng::with_seed(1);
//! let found = view.list(&hash, NOBODY, 1_030, &mut random).expect("nobody writes");
//! assert_eq!(found[0].address, peer);
//! let later = view.list(&hash, NOBODY, 1_090, &mut random).expect("nobody writes");
//! assert!(later.is_empty());
//! # Ok::<(), std::io::Error>(())
//! ```

mod lists;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::RandomState;
use std::io;
use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entries::{Limits, Number};
use super::free_list::FreeList;
use super::record::{Class, List, Record};
use super::shares::{Refusal, Shares};
use super::tables::{Admission, Tables, is_own};
use super::view::View;
use crate::hash::CascadeHash;
use crate::net::source::Source;
use crate::text::count;
pub use sweep::{Judge, Swept};

/// Spare room for files beyond those tracked at first. What is not used takes no memory.
const MORE_FILES: u32 = 64;

/// Which files a tracker tracks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tracked {
    /// Any.
    Any,
    /// These.
    Named(BTreeSet<CascadeHash>),
}

impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any file is tracked"),
            Self::Named(hashes) => f.write_str(&count(hashes.len(), "file")),
        }
    }
}

/// What a cascade file says of a file, for status reports only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// How many blocks it has.
    pub blocks: u32,
    /// What it is called here.
    pub name: String,
}

/// The registry, in its owner's process.
#[derive(Debug)]
pub struct Registry {
    tables: Arc<Tables>,
    free_chunks: FreeList,
    free_files: FreeList,
    free_sources: FreeList,
    /// Files that are not tracked any more but still have peers.
    retired: BTreeSet<u32>,
    /// Where the next sweep continues.
    cursor: u32,
    /// What is known of files.
    described: BTreeMap<CascadeHash, Description>,
}

impl Registry {
    /// An empty registry with room for `capacity` peers (at least one), each of which is forgotten `ttl` seconds after
    /// it was last seen. `keys` are secret: strangers choose what is hashed.
    ///
    /// # Errors
    /// Where the memory cannot be mapped.
    pub fn new(capacity: u32, ttl: u32, tracked: &Tracked, keys: RandomState) -> io::Result<Self> {
        let named = match tracked {
            Tracked::Any => None,
            Tracked::Named(hashes) => Some(hashes),
        };
        let shares = Shares::new(capacity, named.map(BTreeSet::len));
        // Of an open tracker, each record may be that of another file.
        let files = match named {
            None => shares.capacity,
            Some(hashes) => u32::try_from(hashes.len())
                .ok()
                .filter(|files| *files <= u32::MAX / 8)
                .map(|files| files + files.max(MORE_FILES))
                .ok_or(io::ErrorKind::OutOfMemory)?,
        };
        let tables = Tables::new(shares, files, named.is_none(), ttl, keys)?;
        let mut registry = Self {
            tables: Arc::new(tables),
            free_chunks: FreeList::new(Tables::chunks(shares.capacity, files)),
            free_files: FreeList::new(files),
            free_sources: FreeList::new(Limits::sources(shares.capacity)),
            retired: BTreeSet::new(),
            cursor: 0,
            described: BTreeMap::new(),
        };
        let per_hash = Number::PerHash;
        registry.tables.set_number(per_hash, shares.per_hash);
        for hash in named.into_iter().flatten() {
            registry.add_file(hash);
        }
        Ok(registry)
    }

    /// Tracks these files from now on, if there is room for them, and returns whether there is. Peers of other files
    /// remain until [`Registry::review`] has removed them.
    pub fn track(&mut self, tracked: &Tracked) -> bool {
        let Tracked::Named(hashes) = tracked else {
            return self.tables.limits.open;
        };
        let tables = Arc::clone(&self.tables);
        let found = |hash: &&CascadeHash| tables.find_file(hash).is_some();
        let (old, new): (Vec<_>, Vec<_>) = hashes.iter().partition(found);
        if tables.limits.open || new.len() > self.free_files.len() as usize {
            return false;
        }
        let _writing = tables.sequence.write();
        let kept: BTreeSet<u32> = old
            .iter()
            .filter_map(|hash| tables.find_file(hash))
            .collect();
        let retired = self.files().filter(|file| !kept.contains(file)).collect();
        self.retired = retired;
        kept.iter()
            .for_each(|file| tables.set_retired(*file, false));
        for file in self.retired.clone() {
            tables.set_retired(file, true);
            self.remove_file_if_unused(file);
        }
        for hash in &new {
            self.add_file(hash);
        }
        let shares = Shares::new(tables.shares.capacity, Some(hashes.len()));
        tables.set_number(Number::PerHash, shares.per_hash);
        true
    }

    /// The same, where this is known of files.
    pub fn with_descriptions(mut self, described: &BTreeMap<CascadeHash, Description>) -> Self {
        self.describe(described);
        self
    }

    /// Sets what is known of files, for status reports only.
    pub fn describe(&mut self, described: &BTreeMap<CascadeHash, Description>) {
        self.described = described.clone();
        let tables = Arc::clone(&self.tables);
        let _writing = tables.sequence.write();
        for file in self.files() {
            tables.set_description(file, described.get(&tables.file(file)));
        }
    }

    /// An empty registry with as much room, for other files.
    ///
    /// # Errors
    /// Where the memory cannot be mapped.
    pub fn successor(&self, tracked: &Tracked) -> io::Result<Self> {
        let tables = &self.tables;
        Self::new(
            tables.shares.capacity,
            tables.limits.ttl,
            tracked,
            RandomState::new(),
        )
    }

    /// A view of this registry, which sees later changes.
    pub fn view(&self) -> View {
        View(Arc::clone(&self.tables))
    }

    /// Registers a peer, or renews it. A renewal is always accepted; from then on it counts against the quota of the
    /// source that renews, if that has a record left.
    ///
    /// # Errors
    /// The reason, for the client.
    pub fn subscribe(
        &mut self,
        hash: &CascadeHash,
        peer: SocketAddrV4,
        source: IpAddr,
        good: bool,
        now: u32,
    ) -> Result<(), Refusal> {
        let source = source.into();
        let tables = Arc::clone(&self.tables);
        let admission = tables.admit(hash, peer, source)?;
        let _writing = tables.sequence.write();
        match admission {
            Admission::Renewal(id) => self.renew(id, source, good, now),
            Admission::New { file, dropped } => {
                if let Some((id, record)) = dropped.and_then(|id| Some((id, tables.record(id)?))) {
                    self.remove_but_keep(id, &record, file);
                }
                let file = file.or_else(|| self.add_file(hash)).ok_or(Refusal::Full)?;
                let source = self.charge(source, peer).ok_or(Refusal::SourceShare)?;
                let record = Record {
                    peer,
                    last_seen: now,
                    source,
                };
                let class = self.class(file, &record, good, None);
                self.enter(List { file, class }, &record);
                tables.set_number(Number::Records, tables.number(Number::Records) + 1);
            }
        }
        Ok(())
    }

    /// Removes a peer; returns whether it was registered.
    pub fn unsubscribe(&mut self, hash: &CascadeHash, peer: SocketAddrV4) -> bool {
        let tables = Arc::clone(&self.tables);
        let found = tables
            .find_file(hash)
            .and_then(|file| tables.find_peer(file, peer));
        let Some((id, record)) = found.and_then(|id| Some((id, tables.record(id)?))) else {
            return false;
        };
        let _writing = tables.sequence.write();
        self.remove(id, &record);
        true
    }

    fn renew(&mut self, id: u32, source: Source, good: bool, now: u32) {
        let Some(mut record) = self.tables.record(id) else {
            return;
        };
        record.last_seen = now;
        let before = self.tables.source(record.source);
        // Whoever registered itself is not taken for somebody whom others registered because they do so as well.
        if before != source
            && !is_own(before, record.peer)
            && let Some(payer) = self.charge(source, record.peer)
        {
            self.discharge(record.source, record.peer);
            record.source = payer;
        }
        let List {
            file,
            class: before,
        } = self.tables.list_of(id);
        let class = self.class(file, &record, good, Some(before));
        if class == before {
            self.tables.set_record(id, &record);
        } else {
            self.leave(id, &record);
            self.enter(List { file, class }, &record);
        }
    }

    /// The class of a peer that is, or is to be, in this one.
    fn class(&self, file: u32, record: &Record, good: bool, now: Option<Class>) -> Class {
        let tables = &self.tables;
        let address = *record.peer.ip();
        match now {
            _ if good => Class::Good,
            _ if !is_own(tables.source(record.source), record.peer) => Class::Last,
            Some(Class::Own) => Class::Own,
            _ if tables.is_crowded(file, address) => Class::Last,
            _ => Class::Own,
        }
    }

    fn remove(&mut self, id: u32, record: &Record) {
        self.remove_but_keep(id, record, None);
    }

    /// Removes a record, and its file where that is not needed any more, unless it is this one.
    fn remove_but_keep(&mut self, id: u32, record: &Record, kept: Option<u32>) {
        let tables = Arc::clone(&self.tables);
        let file = tables.list_of(id).file;
        self.leave(id, record);
        self.discharge(record.source, record.peer);
        tables.set_number(Number::Records, tables.number(Number::Records) - 1);
        if kept != Some(file) && (tables.limits.open || self.retired.contains(&file)) {
            self.remove_file_if_unused(file);
        }
    }

    // Files.

    fn add_file(&mut self, hash: &CascadeHash) -> Option<u32> {
        let tables = &self.tables;
        let id = self.free_files.take(|id| tables.free_file_after(id))?;
        tables.set_file(id, hash);
        tables.set_description(id, self.described.get(hash));
        tables.by_hash.insert(tables.hash_of_file(hash), id);
        Some(id)
    }

    /// All files, from an index of which no more is known than where each can be found.
    fn files(&self) -> impl Iterator<Item = u32> {
        let tables = &self.tables;
        (0..self.free_files.fresh).filter(|id| tables.find_file(&tables.file(*id)) == Some(*id))
    }

    fn remove_file_if_unused(&mut self, id: u32) {
        let tables = &self.tables;
        if tables.records_of_file(id) > 0 {
            return;
        }
        tables
            .by_hash
            .remove(tables.hash_of_file(&tables.file(id)), id, |other| {
                tables.hash_of_file(&tables.file(other))
            });
        self.free_files
            .give(id, |id, next| tables.set_free_file_after(id, next));
        self.retired.remove(&id);
    }

    // Sources.

    /// Charges the record of a peer to a source, if its quota allows it.
    fn charge(&mut self, source: Source, peer: SocketAddrV4) -> Option<u32> {
        let tables = &self.tables;
        let foreign = u32::from(!is_own(source, peer));
        if let Some(id) = tables.find_source(source) {
            let count = tables.source_count(id);
            let of_others = tables.foreign_count(id) + foreign;
            let has_room = count < tables.shares.per_source
                && (foreign == 0 || of_others <= tables.shares.foreign);
            return has_room.then(|| {
                tables.set_source_count(id, count + 1);
                tables.set_foreign_count(id, of_others);
                id
            });
        }
        let id = self.free_sources.take(|id| tables.free_source_after(id))?;
        tables.set_source(id, source);
        tables.set_source_count(id, 1);
        tables.set_foreign_count(id, foreign);
        tables.by_source.insert(tables.hash_of_source(source), id);
        Some(id)
    }

    /// Gives back a source's record, of this peer; a source without records is removed.
    fn discharge(&mut self, id: u32, peer: SocketAddrV4) {
        let tables = &self.tables;
        if !is_own(tables.source(id), peer) {
            tables.set_foreign_count(id, tables.foreign_count(id).saturating_sub(1));
        }
        let count = tables.source_count(id).saturating_sub(1);
        tables.set_source_count(id, count);
        if count > 0 {
            return;
        }
        tables
            .by_source
            .remove(tables.hash_of_source(tables.source(id)), id, |other| {
                tables.hash_of_source(tables.source(other))
            });
        self.free_sources
            .give(id, |id, next| tables.set_free_source_after(id, next));
    }
}

#[cfg(test)]
mod class_tests;
#[cfg(test)]
mod tests;
