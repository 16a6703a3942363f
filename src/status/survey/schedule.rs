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
mod tests {
    use super::*;
    use crate::hash::CascadeHash;
    use std::collections::HashSet;
    use std::net::SocketAddrV4;

    /// The peer at an address of its own that has this number.
    fn peer(number: u32) -> Confirmed {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + number);
        let key = (CascadeHash([1; 32]), SocketAddrV4::new(address, 9000));
        (key, Some(10))
    }

    fn peers(numbers: std::ops::Range<u32>) -> Vec<Confirmed> {
        numbers.map(peer).collect()
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
        schedule.follow(peers(0..1000), now);
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
            (Outcome::Closed, [60, 120, 240]),
            (Outcome::NotAsked, [1, 1, 1]),
        ] {
            let mut now = Instant::now();
            let mut schedule = Schedule::new(10, 10, now);
            schedule.follow(peers(1..2), now);
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
        schedule.follow(peers(1..2), now);
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
        now += PART;
        let question = schedule.next(now).expect("it is time");
        schedule.over(question.place, Outcome::Closed, now);
        assert_eq!(schedule.due(), Some(now + SILENT), "it knows the question");
        assert!(!schedule.is_lost(question.place));
    }

    #[test]
    fn those_who_do_not_answer_keep_nobody_else_waiting() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(1000, 1000, now);
        schedule.follow(peers(0..200), now);
        // Each is silent once, and asked again.
        while schedule.due() == Some(now) {
            let question = questions(&mut schedule, now);
            for Question { place, .. } in question {
                schedule.over(place, Outcome::Silent, now);
            }
        }
        now += SILENT;
        assert_eq!(questions(&mut schedule, now).len(), AT_ONCE_TO_DOUBTFUL);
        schedule.follow(peers(0..300), now);
        let others = questions(&mut schedule, now);
        assert_eq!(others.len(), AT_ONCE - AT_ONCE_TO_DOUBTFUL);
        assert!(others.iter().all(|question| question.key >= peer(200).0));
        assert_eq!(schedule.due(), None, "until one of them is over");
    }

    #[test]
    fn who_takes_long_is_asked_among_those_who_are_silent() {
        let now = Instant::now();
        let mut schedule = Schedule::new(1000, 1000, now);
        schedule.follow(peers(0..AT_ONCE as u32), now);
        let asked = questions(&mut schedule, now);
        assert_eq!(asked.len(), AT_ONCE);
        let later = now + SLOW + seconds(1);
        for question in asked {
            schedule.over(question.place, Outcome::Said(Answer::Some(0)), later);
        }
        let again = questions(&mut schedule, later + PART);
        assert_eq!(again.len(), AT_ONCE_TO_DOUBTFUL);
    }

    #[test]
    fn few_are_asked_at_one_address_at_the_same_time() {
        let now = Instant::now();
        let mut schedule = Schedule::new(1000, 1000, now);
        let same = |port| {
            let key = (peer(0).0.0, SocketAddrV4::new([192, 0, 2, 1].into(), port));
            (key, None)
        };
        schedule.follow((1..=50).map(same).collect(), now);
        assert_eq!(questions(&mut schedule, now).len(), AT_ONCE_PER_ADDRESS);
        assert_eq!(schedule.due(), None, "until one of them is over");
    }

    #[test]
    fn a_peer_that_does_not_know_the_question_is_asked_about_no_other_file() {
        let now = Instant::now();
        let mut schedule = Schedule::new(1000, 1000, now);
        let about = |file| ((CascadeHash([file; 32]), peer(0).0.1), None);
        schedule.follow((0..9).map(about).collect(), now);
        let question = schedule.next(now).expect("it is time");
        schedule.over(question.place, Outcome::NoExtension, now);
        assert_eq!(schedule.due(), Some(now + NEVER_HEARD_OF_IT));
    }

    #[test]
    fn who_is_not_registered_any_more_is_forgotten_and_makes_room() {
        let now = Instant::now();
        let mut schedule = Schedule::new(3, 1000, now);
        assert!(schedule.follow(peers(0..3), now).is_empty());
        assert!(schedule.follow(peers(0..3), now).is_empty());
        let question = schedule.next(now).expect("one");
        let left = schedule.follow(peers(7..9), now);
        assert_eq!(left.len(), 2, "one is being asked");
        assert!(!left.contains(&question.place));
        schedule.over(question.place, Outcome::Said(Answer::All), now);
        assert_eq!(schedule.follow(peers(7..9), now), [question.place]);
        let asked: HashSet<Key> = questions(&mut schedule, now)
            .iter()
            .map(|question| question.key)
            .collect();
        assert_eq!(asked, HashSet::from([peer(7).0, peer(8).0]));
    }

    #[test]
    fn how_many_blocks_a_file_has_may_become_known_later() {
        let now = Instant::now();
        let mut schedule = Schedule::new(3, 1000, now);
        let (key, _) = peer(1);
        for blocks in [None, Some(7)] {
            schedule.follow(vec![(key, blocks)], now);
            schedule.not_before = now;
            let question = schedule.next(now).expect("it is time");
            assert_eq!(question.blocks, blocks);
            schedule.over(question.place, Outcome::NotAsked, now - AGAIN);
        }
    }
}
