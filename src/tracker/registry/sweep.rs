//! Incremental sweeps over all records: those that have expired are removed, and those that a new policy refuses.

use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;

use super::Registry;
use crate::hash::CascadeHash;
use crate::tracker::entries::Number;
use crate::tracker::record::{CHUNK_RECORDS, Class, List};

/// The result of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Records removed.
    pub removed: u32,
    /// Record slots passed; the next sweep continues after them.
    pub passed: u32,
}

/// Decides whether a peer of a file, registered by a source, may stay (`None`: no), and whether it is a good one.
pub type Judge<'a> = &'a dyn Fn(&CascadeHash, SocketAddrV4, IpAddr) -> Option<bool>;

impl Registry {
    /// The number of record slots in a full round.
    pub fn extent(&self) -> u32 {
        self.tables.number(Number::Chunks) * CHUNK_RECORDS
    }

    /// Examines the next `budget` record slots, cyclically, and removes expired records; returns how many. A record
    /// from the future (the clock was set back) is given the present time, or it would stay for too long.
    pub fn sweep(&mut self, now: u32, budget: u32) -> u32 {
        self.sweep_and(now, budget, None).removed
    }

    /// As [`Registry::sweep`], and also applies the judge's verdict to each record that has not expired. Records move
    /// meanwhile, so that a full round may miss a few: these will expire, since the policy refuses their renewal.
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

    /// Removes, moves or re-dates a record; returns whether its slot is done with. If not, another record may have
    /// moved there. Each slot is a write of its own, so that readers never wait for a whole sweep.
    fn look_at(&mut self, id: u32, now: u32, judge: Option<Judge<'_>>) -> bool {
        let tables = Arc::clone(&self.tables);
        let Some(mut record) = tables.record(id) else {
            return true;
        };
        let List { file, class } = tables.list_of(id);
        let verdict = match judge {
            _ if tables.is_expired(record.last_seen, now) => None,
            None => Some(class == Class::Good),
            Some(judge) => {
                let source = tables.source(record.source).into();
                judge(&tables.file(file), record.peer, source)
            }
        };
        let verdict = verdict.map(|good| self.class(file, &record, good, Some(class)));
        match verdict {
            Some(verdict) if verdict == class => {
                if record.last_seen > now {
                    record.last_seen = now;
                    let _writing = tables.sequence.write();
                    tables.set_record(id, &record);
                }
                true
            }
            Some(class) => {
                let _writing = tables.sequence.write();
                self.leave(id, &record);
                self.enter(List { file, class }, &record);
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
