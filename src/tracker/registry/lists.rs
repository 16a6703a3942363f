//! The lists of records, two for each file, which are stored in chunks of the table.

use std::sync::Arc;

use super::Registry;
use crate::tracker::entries::Number;
use crate::tracker::record::{CHUNK_RECORDS, Class, List, Part, Record};

impl Registry {
    /// Adds a record at the end of a list.
    pub(super) fn enter(&mut self, list: List, record: &Record) {
        let tables = Arc::clone(&self.tables);
        let position = tables.list_length(list);
        if position.is_multiple_of(CHUNK_RECORDS) {
            self.add_chunk(Part {
                list,
                number: position / CHUNK_RECORDS,
            });
        }
        let Some(id) = tables.find_in_list(list, position) else {
            debug_assert!(false, "there are chunks for every record");
            return;
        };
        tables.set_list_length(list, position + 1);
        tables.set_record(id, record);
        let hash = tables.hash_of_peer(list.file, record.peer);
        tables.by_peer.insert(hash, id);
        if list.class == Class::Own {
            let (address, network) = tables.hashes_of_crowds(list.file, *record.peer.ip());
            tables.of_address.increase(address);
            tables.of_network.increase(network);
        }
    }

    /// Removes a record from its list; the last one of the list moves to its place.
    pub(super) fn leave(&mut self, id: u32, record: &Record) {
        let tables = Arc::clone(&self.tables);
        let list = tables.list_of(id);
        let position = tables.list_length(list).saturating_sub(1);
        let Some(last) = tables.find_in_list(list, position) else {
            debug_assert!(false, "a list with a record is not empty");
            return;
        };
        let hash_of = |id| tables.hash_of_record(id);
        let hash = tables.hash_of_peer(list.file, record.peer);
        tables.by_peer.remove(hash, id, hash_of);
        if let Some(moved) = tables.record(last).filter(|_| last != id) {
            let hash = tables.hash_of_record(last);
            tables.by_peer.remove(hash, last, hash_of);
            tables.set_record(id, &moved);
            tables.by_peer.insert(hash, id);
        }
        tables.clear_record(last);
        if list.class == Class::Own {
            let (address, network) = tables.hashes_of_crowds(list.file, *record.peer.ip());
            tables.of_address.decrease(address);
            tables.of_network.decrease(network);
        }
        tables.set_list_length(list, position);
        if position.is_multiple_of(CHUNK_RECORDS) {
            self.remove_chunk(last / CHUNK_RECORDS);
        }
    }

    fn add_chunk(&mut self, part: Part) {
        let tables = &self.tables;
        let Some(chunk) = self.free_chunks.take(|id| tables.free_chunk_after(id)) else {
            return;
        };
        tables.set_number(Number::Chunks, self.free_chunks.fresh);
        tables.set_part(chunk, part);
        tables.by_part.insert(tables.hash_of_part(part), chunk);
    }

    fn remove_chunk(&mut self, chunk: u32) {
        let tables = &self.tables;
        let hash_of = |chunk| tables.hash_of_part(tables.part(chunk));
        tables.by_part.remove(hash_of(chunk), chunk, hash_of);
        self.free_chunks
            .give(chunk, |id, next| tables.set_free_chunk_after(id, next));
    }
}
