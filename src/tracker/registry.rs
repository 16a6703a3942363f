//! The registered peers, from the side of their owner, the only one who writes.
//!
//! Every operation takes a bounded time, whatever the registry holds; expired records are removed a few at a time.
//! Readers have a [`View`]. Time (in seconds since the Unix epoch) is an argument.

use std::collections::BTreeSet;
use std::hash::RandomState;
use std::io;
use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;

use super::record::{List, Place, Record};
use super::shares::{Refusal, Shares, Source};
use super::tables::{Admission, Number, Tables};
use super::view::View;
use crate::hash::CascadeHash;

/// Which files a tracker tracks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tracked {
    /// Any.
    Any,
    /// These.
    Named(BTreeSet<CascadeHash>),
}

/// The registry, in the hands of its owner.
#[derive(Debug)]
pub struct Registry {
    tables: Arc<Tables>,
    free_records: FreeList,
    free_files: FreeList,
    free_sources: FreeList,
    /// Where the next sweep goes on.
    cursor: u32,
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
                .filter(|files| *files <= u32::MAX / 4)
                .ok_or(io::ErrorKind::OutOfMemory)?,
        };
        let tables = Tables::new(shares, files, named.is_none(), ttl, keys)?;
        let mut registry = Self {
            tables: Arc::new(tables),
            free_records: FreeList::new(shares.capacity),
            free_files: FreeList::new(files),
            free_sources: FreeList::new(Tables::sources(shares.capacity)),
            cursor: 0,
        };
        for hash in named.into_iter().flatten() {
            registry.add_file(hash);
        }
        Ok(registry)
    }

    /// A reader of this registry, which later changes are visible to.
    pub fn view(&self) -> View {
        View(Arc::clone(&self.tables))
    }

    /// Registers a peer, or renews it. A renewal is always accepted; it is counted for the source that renews from
    /// now on, if that has a record left in its share.
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
            Admission::New(file) => {
                let file = file.or_else(|| self.add_file(hash)).ok_or(Refusal::Full)?;
                let id = self.take_record().ok_or(Refusal::Full)?;
                let source = self.charge(source).ok_or(Refusal::SourceShare)?;
                let place = self.append(List { file, good });
                let record = Record {
                    peer,
                    last_seen: now,
                    source,
                    place,
                };
                self.add_record(id, &record);
            }
        }
        Ok(())
    }

    /// Forgets a peer; says whether it was there.
    pub fn unsubscribe(&mut self, hash: &CascadeHash, peer: SocketAddrV4) -> bool {
        let tables = Arc::clone(&self.tables);
        let found = tables
            .find_file(hash)
            .and_then(|file| tables.find_peer(file, peer));
        if let Some(id) = found {
            let _writing = tables.sequence.write();
            self.remove(id);
        }
        found.is_some()
    }

    /// How many records a sweep looks at before it comes round.
    pub fn extent(&self) -> u32 {
        self.tables.number(Number::Highest)
    }

    /// Looks at the next `budget` records, round and round, and removes those that have expired; says how many. A
    /// record from the future (the clock was set back) is dated now, or it would stay for long.
    pub fn sweep(&mut self, now: u32, budget: u32) -> u32 {
        let tables = Arc::clone(&self.tables);
        let highest = tables.number(Number::Highest);
        let mut removed = 0;
        for _ in 0..budget.min(highest) {
            let id = self.cursor;
            self.cursor = (id + 1) % highest;
            let Some(record) = tables.record(id) else {
                continue;
            };
            if tables.is_expired(record.last_seen, now) {
                // One write each, so that no reader waits for all of them.
                let _writing = tables.sequence.write();
                self.remove(id);
                removed += 1;
            } else if record.last_seen > now {
                let _writing = tables.sequence.write();
                let last_seen = now;
                tables.set_record(
                    id,
                    &Record {
                        last_seen,
                        ..record
                    },
                );
            }
        }
        removed
    }

    fn renew(&mut self, id: u32, source: Source, good: bool, now: u32) {
        let Some(mut record) = self.tables.record(id) else {
            return;
        };
        record.last_seen = now;
        if self.tables.source(record.source) != source
            && let Some(payer) = self.charge(source)
        {
            self.discharge(record.source);
            record.source = payer;
        }
        let List { file, good: before } = record.place.list;
        if good != before {
            self.vacate(id, record.place);
            record.place = self.append(List { file, good });
            self.tables.set_record(id, &record);
            self.enter(id, record.place);
        } else {
            self.tables.set_record(id, &record);
        }
    }

    fn remove(&mut self, id: u32) {
        let tables = Arc::clone(&self.tables);
        let Some(record) = tables.record(id) else {
            return;
        };
        let file = record.place.list.file;
        self.vacate(id, record.place);
        tables
            .by_peer
            .remove(tables.hash_of_peer(file, record.peer), id, |other| {
                tables.record(other).map_or(0, |other| {
                    tables.hash_of_peer(other.place.list.file, other.peer)
                })
            });
        self.discharge(record.source);
        tables.clear_record(id);
        self.free_records
            .give(id, |id, next| tables.set_free_record_after(id, next));
        tables.set_number(Number::Records, tables.number(Number::Records) - 1);
        if tables.open {
            self.remove_file_if_unused(file);
        }
    }

    fn take_record(&mut self) -> Option<u32> {
        let tables = &self.tables;
        let id = self.free_records.take(|id| tables.free_record_after(id))?;
        tables.set_number(Number::Highest, self.free_records.fresh);
        tables.set_number(Number::Records, tables.number(Number::Records) + 1);
        Some(id)
    }

    fn add_record(&self, id: u32, record: &Record) {
        let tables = &self.tables;
        tables.set_record(id, record);
        self.enter(id, record.place);
        tables
            .by_peer
            .insert(tables.hash_of_peer(record.place.list.file, record.peer), id);
    }

    // Places.

    /// A new place at the end of a list.
    fn append(&self, list: List) -> Place {
        let position = self.tables.list_length(list);
        self.tables.set_list_length(list, position + 1);
        Place { list, position }
    }

    /// Makes a record be found by its place.
    fn enter(&self, id: u32, place: Place) {
        let hash = self.tables.hash_of_place(place);
        self.tables.by_place.insert(hash, id);
    }

    /// Takes a record out of its list; the last one of the list takes its place.
    fn vacate(&self, id: u32, place: Place) {
        let tables = &self.tables;
        let Some(position) = tables.list_length(place.list).checked_sub(1) else {
            debug_assert!(false, "a list with a record is not empty");
            return;
        };
        let last = Place {
            list: place.list,
            position,
        };
        let moved = tables.find_place(last).filter(|moved| *moved != id);
        self.leave(id, place);
        if let Some((moved, record)) = moved.and_then(|id| Some((id, tables.record(id)?))) {
            self.leave(moved, last);
            tables.set_record(moved, &Record { place, ..record });
            self.enter(moved, place);
        }
        tables.set_list_length(place.list, position);
    }

    fn leave(&self, id: u32, place: Place) {
        let tables = &self.tables;
        tables
            .by_place
            .remove(tables.hash_of_place(place), id, |other| {
                tables
                    .record(other)
                    .map_or(0, |other| tables.hash_of_place(other.place))
            });
    }

    // Files.

    fn add_file(&mut self, hash: &CascadeHash) -> Option<u32> {
        let tables = &self.tables;
        let id = self.free_files.take(|id| tables.free_file_after(id))?;
        tables.set_file(id, hash);
        tables.by_hash.insert(tables.hash_of_file(hash), id);
        Some(id)
    }

    fn remove_file_if_unused(&mut self, id: u32) {
        let tables = &self.tables;
        let length = |good| tables.list_length(List { file: id, good });
        if length(true) + length(false) > 0 {
            return;
        }
        tables
            .by_hash
            .remove(tables.hash_of_file(&tables.file(id)), id, |other| {
                tables.hash_of_file(&tables.file(other))
            });
        self.free_files
            .give(id, |id, next| tables.set_free_file_after(id, next));
    }

    // Sources.

    /// Counts one record more for a source, if its share allows it.
    fn charge(&mut self, source: Source) -> Option<u32> {
        let tables = &self.tables;
        if let Some(id) = tables.find_source(source) {
            let count = tables.source_count(id);
            return (count < tables.shares.per_source).then(|| {
                tables.set_source_count(id, count + 1);
                id
            });
        }
        let id = self.free_sources.take(|id| tables.free_source_after(id))?;
        tables.set_source(id, source);
        tables.set_source_count(id, 1);
        tables.by_source.insert(tables.hash_of_source(source), id);
        Some(id)
    }

    /// Counts one record less; a source without any is forgotten.
    fn discharge(&mut self, id: u32) {
        let tables = &self.tables;
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

/// Ids of a table's entries that are not in use: those that never were, and a list of others, whose links lie in the
/// entries themselves.
#[derive(Debug)]
struct FreeList {
    /// The first of the list; [`NONE`] where it is empty.
    first: u32,
    /// The lowest id that was never used.
    fresh: u32,
    capacity: u32,
}

/// The end of a free list.
const NONE: u32 = u32::MAX;

impl FreeList {
    fn new(capacity: u32) -> Self {
        Self {
            first: NONE,
            fresh: 0,
            capacity,
        }
    }

    fn take(&mut self, after: impl Fn(u32) -> u32) -> Option<u32> {
        if self.first != NONE {
            let id = self.first;
            self.first = after(id);
            return Some(id);
        }
        (self.fresh < self.capacity).then(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }

    fn give(&mut self, id: u32, set_after: impl Fn(u32, u32)) {
        set_after(id, self.first);
        self.first = id;
    }
}

#[cfg(test)]
mod tests;
