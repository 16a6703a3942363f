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
