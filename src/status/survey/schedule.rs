//! Who is asked when. Pure: times are given.
//!
//! Whoever has a part of a file is asked again soon, for that is what people watch; who has all of it, now and then; who
//! does not answer, less and less often; and who does not know the question, hardly ever. All of that at a steady pace,
//! however many there are.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::status::answers::{Answer, Key};

/// So many questions are open at the same time, in all and at one address.
const AT_ONCE: usize = 16;
const AT_ONCE_PER_ADDRESS: usize = 2;
/// How many of those that one address registered are asked: nobody fills the table alone.
const PER_ADDRESS: usize = 64;
/// Who has a part is asked again after so long, who has all of it, and who does not know the question.
const PART: Duration = Duration::from_secs(5);
const ALL: Duration = Duration::from_secs(60);
const NEVER_HEARD_OF_IT: Duration = Duration::from_secs(3600);
/// The same for those who do not answer, the first time and at most; it doubles.
const SILENT: Duration = Duration::from_secs(10);
const SILENT_AT_MOST: Duration = Duration::from_secs(600);

/// So many times in a row a peer may be silent before what it said is not believed any more.
const FORGIVEN: u32 = 2;

/// A peer that can be asked, and how many blocks the file has, where that is known.
pub type Candidate = (Key, Option<u32>);

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It said how much it has.
    Said(Answer),
    /// It does not know the question.
    NoExtension,
    /// It said nothing that makes sense.
    Silent,
}

/// A question that is due.
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
    known: HashMap<Key, usize>,
    /// How long after a question the next one may be.
    pace: Duration,
    not_before: Instant,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    blocks: Option<u32>,
    state: State,
    /// How often in a row it was silent.
    silent: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Due(Instant),
    Asked,
}

impl Entry {
    fn is_asked(&self) -> bool {
        self.state == State::Asked
    }

    fn address(&self) -> Ipv4Addr {
        *self.key.1.ip()
    }
}

impl Schedule {
    /// Room for so many, of whom at most `per_second` are asked in a second.
    pub fn new(places: usize, per_second: u32, now: Instant) -> Self {
        Self {
            places: std::iter::repeat_with(|| None).take(places).collect(),
            known: HashMap::new(),
            pace: Duration::from_secs(1) / per_second.max(1),
            not_before: now,
        }
    }

    /// These are registered now, as far as there is room. Answers the places of those that are not any more.
    pub fn follow(
        &mut self,
        candidates: impl IntoIterator<Item = Candidate>,
        now: Instant,
    ) -> Vec<usize> {
        let mut of_address: HashMap<Ipv4Addr, usize> = HashMap::new();
        let mut wanted: HashMap<Key, Option<u32>> = HashMap::new();
        for (key, blocks) in candidates {
            let of_address = of_address.entry(*key.1.ip()).or_default();
            if *of_address < PER_ADDRESS && wanted.len() < self.places.len() {
                *of_address += 1;
                wanted.insert(key, blocks);
            }
        }
        let left = self.forget_all_but(&wanted);
        let mut free = (0..self.places.len()).filter(|place| self.places[*place].is_none());
        let new: Vec<_> = wanted
            .into_iter()
            .filter(|(key, _)| !self.known.contains_key(key))
            .zip(&mut free)
            .collect();
        for ((key, blocks), place) in new {
            self.known.insert(key, place);
            self.places[place] = Some(Entry {
                key,
                blocks,
                state: State::Due(now),
                silent: 0,
            });
        }
        left
    }

    /// Those that are being asked stay until that is over: their places are not free.
    fn forget_all_but(&mut self, wanted: &HashMap<Key, Option<u32>>) -> Vec<usize> {
        let is_left = |entry: &mut Entry| !entry.is_asked() && !wanted.contains_key(&entry.key);
        let mut left = Vec::new();
        for (place, entry) in self.places.iter_mut().enumerate() {
            if let Some(entry) = entry.take_if(is_left) {
                self.known.remove(&entry.key);
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
        entry.state = State::Asked;
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
        let entries = || self.places.iter().enumerate();
        let asked: Vec<Ipv4Addr> = entries()
            .filter_map(|(_, entry)| entry.as_ref().filter(|entry| entry.is_asked()))
            .map(Entry::address)
            .collect();
        if asked.len() >= AT_ONCE {
            return None;
        }
        let is_busy = |address| {
            let open = asked.iter().filter(|asked| **asked == address);
            open.count() >= AT_ONCE_PER_ADDRESS
        };
        let due = entries().filter_map(|(place, entry)| match entry {
            Some(entry) if !is_busy(entry.address()) => match entry.state {
                State::Due(at) => Some((at, place)),
                State::Asked => None,
            },
            _ => None,
        });
        let (at, place) = due.min()?;
        Some((at.max(self.not_before), place))
    }

    /// A question is over. Answers who had been asked about what.
    pub fn over(&mut self, place: usize, outcome: Outcome, now: Instant) -> Option<Key> {
        let entry = self.places.get_mut(place)?.as_mut()?;
        let pause = match outcome {
            Outcome::Said(answer) if answer.is_complete(entry.blocks) == Some(true) => ALL,
            Outcome::Said(_) => PART,
            Outcome::NoExtension => NEVER_HEARD_OF_IT,
            Outcome::Silent => (SILENT * 2u32.pow(entry.silent.min(8))).min(SILENT_AT_MOST),
        };
        entry.silent = match outcome {
            Outcome::Silent => entry.silent.saturating_add(1),
            _ => 0,
        };
        entry.state = State::Due(now + pause);
        Some(entry.key)
    }

    /// Whether a peer has been silent for so long that nobody knows how much it has.
    pub fn is_lost(&self, place: usize) -> bool {
        let entry = self.places.get(place).and_then(Option::as_ref);
        entry.is_none_or(|entry| entry.silent > FORGIVEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::CascadeHash;
    use std::collections::HashSet;
    use std::net::SocketAddrV4;

    /// The peer at an address of its own that has this number.
    fn peer(number: u32) -> Candidate {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + number);
        let key = (CascadeHash([1; 32]), SocketAddrV4::new(address, 9000));
        (key, Some(10))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// All questions that can be asked now, at no pace.
    fn questions(schedule: &mut Schedule, now: Instant) -> Vec<Question> {
        std::iter::from_fn(|| {
            schedule.not_before = now;
            schedule.next(now)
        })
        .collect()
    }

    #[test]
    fn no_more_are_asked_in_a_second_than_was_said() {
        let mut now = Instant::now();
        let end = now + seconds(10);
        let mut schedule = Schedule::new(1000, 10, now);
        assert_eq!(schedule.due(), None, "there is nobody");
        schedule.follow((0..1000).map(peer), now);
        let mut asked = HashSet::new();
        while let Some(due) = schedule.due().filter(|due| *due < end) {
            assert!(due >= now, "time goes on");
            now = due;
            let question = schedule.next(now).expect("it is time");
            assert!(asked.insert(question.key), "nobody is asked twice");
            schedule.over(question.place, Outcome::Said(Answer::All), now);
        }
        assert_eq!(asked.len(), 100);
    }

    #[test]
    fn who_is_asked_again_when_depends_on_the_answer() {
        let some = |present| Outcome::Said(Answer::Some(present));
        for (outcome, pauses) in [
            (Outcome::Said(Answer::All), [60, 60, 60]),
            (some(10), [60, 60, 60]),
            (some(9), [5, 5, 5]),
            (Outcome::NoExtension, [3600, 3600, 3600]),
            (Outcome::Silent, [10, 20, 40]),
        ] {
            let mut now = Instant::now();
            let mut schedule = Schedule::new(10, 10, now);
            schedule.follow([peer(1)], now);
            for pause in pauses {
                let question = schedule.next(now).expect("it is time");
                assert_eq!(schedule.next(now + seconds(9999)), None, "it is asked once");
                assert_eq!(
                    schedule.over(question.place, outcome, now),
                    Some(question.key)
                );
                assert_eq!(schedule.due(), Some(now + seconds(pause)), "{outcome:?}");
                now += seconds(pause);
            }
        }
        let mut now = Instant::now();
        let mut schedule = Schedule::new(10, 10, now);
        schedule.follow([peer(1)], now);
        for times in 1..100 {
            let question = schedule.next(now).expect("it is time");
            schedule.over(question.place, Outcome::Silent, now);
            assert_eq!(schedule.is_lost(question.place), times > FORGIVEN);
            now = schedule.due().expect("it is asked again");
        }
        let question = schedule.next(now).expect("it is time");
        schedule.over(question.place, Outcome::Silent, now);
        assert_eq!(schedule.due(), Some(now + SILENT_AT_MOST));
        now += SILENT_AT_MOST;
        let question = schedule.next(now).expect("it is time");
        schedule.over(question.place, some(1), now);
        assert_eq!(schedule.due(), Some(now + PART), "all is forgiven");
    }

    #[test]
    fn those_who_do_not_answer_keep_no_address_and_nobody_else_waiting() {
        let now = Instant::now();
        let mut schedule = Schedule::new(1000, 1000, now);
        let same = |port| {
            let key = (peer(0).0.0, SocketAddrV4::new([192, 0, 2, 1].into(), port));
            (key, None)
        };
        schedule.follow((1..=100).map(same), now);
        assert_eq!(schedule.known.len(), PER_ADDRESS);
        assert_eq!(questions(&mut schedule, now).len(), AT_ONCE_PER_ADDRESS);
        assert_eq!(schedule.due(), None, "until one of them is over");
        schedule.follow((1..=100).map(same).chain((0..100).map(peer)), now);
        let others = questions(&mut schedule, now);
        assert_eq!(others.len(), AT_ONCE - AT_ONCE_PER_ADDRESS);
        schedule.over(others[0].place, Outcome::Silent, now);
        assert_eq!(questions(&mut schedule, now).len(), 1);
    }

    #[test]
    fn who_is_not_registered_any_more_is_forgotten_and_makes_room() {
        let now = Instant::now();
        let mut schedule = Schedule::new(3, 1000, now);
        assert!(schedule.follow((0..3).map(peer), now).is_empty());
        assert!(schedule.follow((0..3).map(peer), now).is_empty());
        let question = schedule.next(now).expect("one");
        let left = schedule.follow((7..9).map(peer), now);
        assert_eq!(left.len(), 2, "one is being asked");
        assert!(!left.contains(&question.place));
        assert_eq!(schedule.known.len(), 3);
        schedule.over(question.place, Outcome::Said(Answer::All), now);
        assert_eq!(schedule.follow((7..9).map(peer), now), [question.place]);
        let keys: HashSet<Key> = questions(&mut schedule, now)
            .iter()
            .map(|question| question.key)
            .collect();
        assert_eq!(keys, HashSet::from([peer(7).0, peer(8).0]));
    }
}
