//! Going over all records, a few at a time: what has expired is removed, and what another policy refuses.

use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;

use super::Registry;
use crate::hash::CascadeHash;
use crate::tracker::entries::Number;
use crate::tracker::record::{CHUNK_RECORDS, List};

/// What one sweep has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// So many records were removed.
    pub removed: u32,
    /// So many places were passed: the next sweep goes on after them.
    pub passed: u32,
}

/// Whether a peer of a file that was registered by a source may stay, and if so, whether it is a good one.
pub type Judge<'a> = &'a dyn Fn(&CascadeHash, SocketAddrV4, IpAddr) -> Option<bool>;

impl Registry {
    /// How many places for records a sweep looks at before it comes round.
    pub fn extent(&self) -> u32 {
        self.tables.number(Number::Chunks) * CHUNK_RECORDS
    }

    /// Looks at the next `budget` places for records, round and round, and removes the records that have expired; says
    /// how many. A record from the future (the clock was set back) is dated now, or it would stay for long.
    pub fn sweep(&mut self, now: u32, budget: u32) -> u32 {
        self.sweep_and(now, budget, None).removed
    }

    /// As [`Registry::sweep`], and does what the judge says about each record that has not expired. Records move
    /// meanwhile, so that once round a few may not have been seen: they expire, for none of them will be renewed.
    pub fn review(&mut self, now: u32, budget: u32, judge: Judge<'_>) -> Swept {
        self.sweep_and(now, budget, Some(judge))
    }

    fn sweep_and(&mut self, now: u32, budget: u32, judge: Option<Judge<'_>>) -> Swept {
        let extent = self.extent();
        let mut swept = Swept {
            removed: 0,
            passed: 0,
        };
        for _ in 0..budget.min(extent.saturating_mul(2)) {
            let len = self.tables.number(Number::Records);
            let stays = self.look_at(self.cursor, now, judge);
            swept.removed += len - self.tables.number(Number::Records);
            if stays {
                self.cursor = (self.cursor + 1) % extent;
                swept.passed += 1;
            }
        }
        swept
    }

    /// Removes a record, or moves or dates it; answers whether it lies where it lay. Otherwise another one may have come
    /// to lie there. One write at a time, so that no reader waits for all of them.
    fn look_at(&mut self, id: u32, now: u32, judge: Option<Judge<'_>>) -> bool {
        let tables = Arc::clone(&self.tables);
        let Some(mut record) = tables.record(id) else {
            return true;
        };
        let List { file, good } = tables.list_of(id);
        let verdict = match judge {
            _ if tables.is_expired(record.last_seen, now) => None,
            None => Some(good),
            Some(judge) => {
                let source = tables.source(record.source).into();
                judge(&tables.file(file), record.peer, source)
            }
        };
        match verdict {
            Some(verdict) if verdict == good => {
                if record.last_seen > now {
                    record.last_seen = now;
                    let _writing = tables.sequence.write();
                    tables.set_record(id, &record);
                }
                true
            }
            Some(good) => {
                let _writing = tables.sequence.write();
                self.leave(id, &record);
                self.enter(List { file, good }, &record);
                false
            }
            None => {
                let _writing = tables.sequence.write();
                self.remove(id, &record);
                false
            }
        }
    }
}
