//! One question, in a process of its own: how much of a file does a peer have? (WANT_MAP, PROTOCOL §5)

use std::io::{PipeReader, PipeWriter, Read, Write};

use super::schedule::{Outcome, Question};
use crate::download::extension::{Conversation, Unanswered};
use crate::faults;
use crate::status::answers::Answer;

/// A message in the pipe: a kind, and a number.
const RECORD: usize = 5;
const ALL: u8 = 0;
const SOME: u8 = 1;
const NO_EXTENSION: u8 = 2;
const CLOSED: u8 = 3;

/// The main function of the process that asks.
pub fn ask(question: &Question, mut to: &PipeWriter) -> u8 {
    faults::at("question");
    let (kind, number) = match answer(question) {
        Ok(Answer::All) => (ALL, 0),
        Ok(Answer::Some(present)) => (SOME, present),
        Err(Unanswered::NoExtension) => (NO_EXTENSION, 0),
        Err(Unanswered::Closed) => (CLOSED, 0),
        Err(_) => return 1,
    };
    let mut record = vec![kind];
    record.extend(number.to_ne_bytes());
    to.write_all(&record).map_or(1, |()| 0)
}

/// What a process had to say that has ended, through a pipe of which a read never waits: perhaps nothing, and it may
/// have been taken over by the peer that it asked.
pub fn outcome(from: PipeReader) -> Outcome {
    let mut record = Vec::with_capacity(RECORD);
    let read = from.take(RECORD as u64).read_to_end(&mut record);
    match (read, record.split_first_chunk()) {
        (Ok(RECORD), Some(([kind], number))) => {
            let number = number.try_into().map_or(0, u32::from_ne_bytes);
            match *kind {
                ALL => Outcome::Said(Answer::All),
                SOME => Outcome::Said(Answer::Some(number)),
                NO_EXTENSION => Outcome::NoExtension,
                CLOSED => Outcome::Closed,
                _ => Outcome::Silent,
            }
        }
        _ => Outcome::Silent,
    }
}

fn answer(question: &Question) -> Result<Answer, Unanswered> {
    let Question { key, blocks, .. } = question;
    let (hash, peer) = *key;
    let mut conversation = Conversation::begin(&[peer.into()])?;
    let map = conversation.ask_map(hash, *blocks)?;
    read(&map, *blocks).ok_or(Unanswered::TooLong(map.len() as u64))
}

/// Interprets a map; `None` where it is not that of a file with this many blocks.
fn read(map: &[u8], blocks: Option<u32>) -> Option<Answer> {
    if map.is_empty() {
        return Some(Answer::All);
    }
    let set = map.iter().map(|byte| byte.count_ones()).sum();
    let Some(blocks) = blocks else {
        return Some(Answer::Some(set));
    };
    let spare = match blocks % 8 {
        0 => 0,
        used => 0xff >> used,
    };
    let is_whole = map.len() == blocks.div_ceil(8) as usize;
    let is_clean = map.last().is_some_and(|last| last & spare == 0);
    (is_whole && is_clean).then_some(Answer::Some(set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_says_how_many_blocks_there_are() {
        assert_eq!(read(&[], Some(9)), Some(Answer::All));
        assert_eq!(read(&[], None), Some(Answer::All));
        assert_eq!(read(&[0b1010_0000, 0x80], Some(9)), Some(Answer::Some(3)));
        assert_eq!(read(&[0xff], Some(8)), Some(Answer::Some(8)));
        assert_eq!(read(&[0xff, 0x01], None), Some(Answer::Some(9)));
    }

    #[test]
    fn a_map_that_cannot_be_right_says_nothing() {
        assert_eq!(read(&[0xff], Some(9)), None, "it is too short");
        assert_eq!(read(&[0xff, 0x80, 0], Some(9)), None, "it is too long");
        assert_eq!(
            read(&[0xff, 0xc0], Some(9)),
            None,
            "there is no tenth block"
        );
    }

    #[test]
    fn what_a_process_did_not_say_whole_it_did_not_say() {
        for (bytes, expected) in [
            (&b"\x00\0\0\0\0"[..], Outcome::Said(Answer::All)),
            (&[1, 7, 0, 0, 0, 99], Outcome::Said(Answer::Some(7))),
            (&[2, 0, 0, 0, 0], Outcome::NoExtension),
            (&[3, 0, 0, 0, 0], Outcome::Closed),
            (&[9, 0, 0, 0, 0], Outcome::Silent),
            (&[0, 0, 0, 0], Outcome::Silent),
            (&[], Outcome::Silent),
        ] {
            let (reader, mut writer) = std::io::pipe().expect("a pipe");
            writer.write_all(bytes).expect("there is room");
            drop(writer);
            assert_eq!(outcome(reader), expected, "{bytes:?}");
        }
    }
}
