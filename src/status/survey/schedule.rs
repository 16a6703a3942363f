//! Which peer is asked when. Pure: times are arguments.
//!
//! A peer that has a part of a file is asked again soon, since that is what people watch; one that has all of it, now
//! and then; one that does not answer, less and less often; and one that does not know the question, hardly ever. All
//! of that at a steady rate, however many peers there are; and peers that were silent or slow delay only each other.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::status::answers::{Answer, Key};
use crate::tracker::roll::Confirmed;

/// So many questions are open at the same time: in all, to those who were silent or slow, and at one address.
const AT_ONCE: usize = 64;
const AT_ONCE_TO_DOUBTFUL: usize = 32;
const AT_ONCE_PER_ADDRESS: usize = 2;
/// Whoever takes longer is slow.
const SLOW: Duration = Duration::from_secs(2);
/// Who has a part is asked again after so long, who has all of it, and who does not know the question.
const PART: Duration = Duration::from_secs(5);
const ALL: Duration = Duration::from_secs(60);
const NEVER_HEARD_OF_IT: Duration = Duration::from_secs(3600);
/// The same for those who do not answer, and for those who close the connection, which may mean that they do not know the
/// question: the first time and at most; it doubles.
const SILENT: Duration = Duration::from_secs(10);
const SILENT_AT_MOST: Duration = Duration::from_secs(600);
const CLOSED: Duration = Duration::from_secs(60);
/// When those are asked whom we could not ask.
const AGAIN: Duration = Duration::from_secs(1);
/// So many times in a row a peer may be silent before what it said is not believed any more.
const FORGIVEN: u32 = 2;

/// The outcome of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It said how much it has.
    Said(Answer),
    /// It does not know the question.
    NoExtension,
    /// It closed the connection at the question: it does not know it, or has no room, or ends.
    Closed,
    /// It said nothing that makes sense.
    Silent,
    /// It was not asked, for want of a process.
    NotAsked,
}

/// A question to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The place of the answer.
    pub place: usize,
    /// Who is asked about what.
    pub key: Key,
    /// How many blocks the file has, where that is known.
    pub blocks: Option<u32>,
}

/// All that can be asked.
#[derive(Debug)]
pub struct Schedule {
    places: Vec<Option<Entry>>,
    /// How long after a question the next one may be.
    pace: Duration,
    not_before: Instant,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    blocks: Option<u32>,
    state: State,
    /// How many times in a row it did not answer.
    silent: u32,
    /// Whether it has ever answered.
    known: bool,
    /// Whether it took its time when it was asked last.
    slow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Due(Instant),
    /// Since then.
    Asked(Instant),
}

impl Entry {
    fn new((key, blocks): Confirmed, now: Instant) -> Self {
        Self {
            key,
            blocks,
            state: State::Due(now),
            silent: 0,
            known: false,
            slow: false,
        }
    }

    fn is_asked(&self) -> bool {
        matches!(self.state, State::Asked(_))
    }

    fn is_doubtful(&self) -> bool {
        self.silent > 0 || self.slow
    }

    fn address(&self) -> Ipv4Addr {
        *self.key.1.ip()
    }

    /// Takes note of what became of a question; answers how long it is not asked again.
    fn take(&mut self, outcome: Outcome) -> Duration {
        let silent = self.silent;
        let doubled = |first: Duration, most: Duration| (first * 2u32.pow(silent.min(8))).min(most);
        let pause = match outcome {
            Outcome::Said(answer) if answer.is_complete(self.blocks) == Some(true) => ALL,
            Outcome::Said(_) => PART,
            Outcome::NoExtension => NEVER_HEARD_OF_IT,
            Outcome::Closed if !self.known => doubled(CLOSED, NEVER_HEARD_OF_IT),
            Outcome::Closed | Outcome::Silent => doubled(SILENT, SILENT_AT_MOST),
            Outcome::NotAsked => return AGAIN,
        };
        match outcome {
            Outcome::Closed | Outcome::Silent => self.silent = silent.saturating_add(1),
            _ => self.silent = 0,
        }
        self.known |= matches!(outcome, Outcome::Said(_));
        pause
    }
}

impl Schedule {
    /// Room for so many, of whom at most `per_second` are asked in a second.
    pub fn new(places: usize, per_second: u32, now: Instant) -> Self {
        Self {
            places: std::iter::repeat_with(|| None).take(places).collect(),
            pace: Duration::from_secs(1) / per_second.max(1),
            not_before: now,
        }
    }

    /// These are registered now, as far as there is room. Answers the places of those that are not any more.
    pub fn follow(&mut self, confirmed: Vec<Confirmed>, now: Instant) -> Vec<usize> {
        let mut wanted: HashMap<Key, Option<u32>> = confirmed.into_iter().collect();
        let left = self.forget_all_but(&wanted);
        for entry in self.places.iter_mut().flatten() {
            if let Some(blocks) = wanted.remove(&entry.key) {
                entry.blocks = blocks;
            }
        }
        let free = (0..self.places.len()).filter(|place| self.places[*place].is_none());
        let free: Vec<usize> = free.collect();
        for (new, place) in wanted.into_iter().zip(free) {
            self.places[place] = Some(Entry::new(new, now));
        }
        left
    }

    /// Those that are being asked stay until that is over: their places are not free.
    fn forget_all_but(&mut self, wanted: &HashMap<Key, Option<u32>>) -> Vec<usize> {
        let is_left = |entry: &mut Entry| !entry.is_asked() && !wanted.contains_key(&entry.key);
        let mut left = Vec::new();
        for (place, entry) in self.places.iter_mut().enumerate() {
            if entry.take_if(is_left).is_some() {
                left.push(place);
            }
        }
        left
    }

    /// The next question, where it is time: that which has waited longest.
    pub fn next(&mut self, now: Instant) -> Option<Question> {
        let (due, place) = self.first()?;
        if due > now {
            return None;
        }
        self.not_before = now + self.pace;
        let entry = self.places[place].as_mut()?;
        entry.state = State::Asked(now);
        Some(Question {
            place,
            key: entry.key,
            blocks: entry.blocks,
        })
    }

    /// When there will be a question, unless one that is open is over before.
    pub fn due(&self) -> Option<Instant> {
        self.first().map(|(due, _)| due)
    }

    /// Whose turn is next, and when.
    fn first(&self) -> Option<(Instant, usize)> {
        let entries = || self.places.iter().flatten();
        let asked: Vec<&Entry> = entries().filter(|entry| entry.is_asked()).collect();
        if asked.len() >= AT_ONCE {
            return None;
        }
        let doubtful = asked.iter().filter(|entry| entry.is_doubtful()).count();
        let may_be_asked = |entry: &Entry| {
            let same = |asked: &&&Entry| asked.address() == entry.address();
            asked.iter().filter(same).count() < AT_ONCE_PER_ADDRESS
                && (doubtful < AT_ONCE_TO_DOUBTFUL || !entry.is_doubtful())
        };
        let due = self.places.iter().enumerate().filter_map(|(place, entry)| {
            let entry = entry.as_ref().filter(|entry| may_be_asked(entry))?;
            match entry.state {
                State::Due(at) => Some((at, place)),
                State::Asked(_) => None,
            }
        });
        let (at, place) = due.min()?;
        Some((at.max(self.not_before), place))
    }

    /// A question is over. Answers who had been asked about what.
    pub fn over(&mut self, place: usize, outcome: Outcome, now: Instant) -> Option<Key> {
        let entry = self.places.get_mut(place)?.as_mut()?;
        if let State::Asked(since) = entry.state {
            entry.slow = now.duration_since(since) > SLOW;
        }
        let due = now + entry.take(outcome);
        entry.state = State::Due(due);
        let key = entry.key;
        if outcome == Outcome::NoExtension {
            self.put_off(key.1, due);
        }
        Some(key)
    }

    /// A peer that does not know the question about one file knows it about none.
    fn put_off(&mut self, peer: SocketAddrV4, until: Instant) {
        let entries = self.places.iter_mut().flatten();
        for entry in entries.filter(|entry| entry.key.1 == peer) {
            if let State::Due(at) = &mut entry.state {
                *at = until.max(*at);
            }
        }
    }

    /// Whether a peer has been silent for so long that nobody knows how much it has.
    pub fn is_lost(&self, place: usize) -> bool {
        let entry = self.places.get(place).and_then(Option::as_ref);
        entry.is_none_or(|entry| entry.silent > FORGIVEN)
    }
}

#[cfg(test)]
mod tests;
