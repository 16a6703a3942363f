//! The invariants of tests/invariants hold of messages that are nearly right, and of all that is in tests/corpus: the
//! inputs from which fuzzing begins (see fuzz/), and those that found something.

mod invariants;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

/// A field of a message: right for the most part, wrong in a byte, or anything.
fn any_field(right: &[&'static [u8]], length: usize) -> BoxedStrategy<Vec<u8>> {
    let right =
        proptest::sample::select(right.iter().map(|bytes| bytes.to_vec()).collect::<Vec<_>>());
    let wrong = (right.clone(), 0..length, any::<u8>()).prop_map(|(mut bytes, at, byte)| {
        bytes[at] = byte;
        bytes
    });
    prop_oneof![16 => right, 2 => wrong, 1 => vec(any::<u8>(), length)].boxed()
}

/// Fields one after the other.
fn message(fields: Vec<BoxedStrategy<Vec<u8>>>) -> BoxedStrategy<Vec<u8>> {
    fields.prop_map(|fields| fields.concat()).boxed()
}

/// A few messages, of which the end may be missing or more than enough.
fn stream(message: BoxedStrategy<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![
        4 => Just((0, Vec::new())),
        1 => (1usize..70).prop_map(|missing| (missing, Vec::new())),
        1 => vec(any::<u8>(), 1..70).prop_map(|more| (0, more)),
    ];
    (vec(message, 0..5), end).prop_map(|(messages, (missing, more))| {
        let mut bytes = messages.concat();
        bytes.truncate(bytes.len().saturating_sub(missing));
        bytes.extend(more);
        bytes
    })
}

/// A stream and how it is cut, as [`invariants::cut`] reads it.
fn cut(stream: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (vec(any::<u8>(), 0..20), stream)
        .prop_map(|(lengths, stream)| [&[lengths.len() as u8][..], &lengths, &stream].concat())
}

fn cascade_file() -> impl Strategy<Value = Vec<u8>> {
    let number = || prop_oneof![4 => 0u64..200, 1 => any::<u64>(), 1 => Just(u64::MAX)];
    let magic = any_field(&[b"CASCADE1"], 8);
    (
        magic,
        any::<[u8; 8]>(),
        number(),
        number(),
        -1i64..=1,
        any::<u8>(),
    )
        .prop_map(|(magic, reserved, length, block_size, more, fill)| {
            let blocks = length.div_ceil(block_size.max(1)).min(300) as i64 + more;
            let mut bytes = [&magic[..], &reserved, &length.to_be_bytes()].concat();
            bytes.extend(block_size.to_be_bytes());
            bytes.resize(64 + 32 * blocks.max(0) as usize, fill);
            bytes
        })
}

fn tracker_request() -> BoxedStrategy<Vec<u8>> {
    let address = prop_oneof![
        2 => Just([192, 0, 2, 9, 0, 80]),
        1 => any::<u8>().prop_map(|n| [192, 0, 2, n, 0, 80]),
        1 => any::<[u8; 6]>(),
    ];
    message(vec![
        any_field(&[b"CASC\0\0\0\x01"], 8),
        any_field(&[b"\0\0\0\x01", b"\0\0\0\x02", b"\0\0\0\x03"], 4),
        any_field(&[b"\0\0\0\x26"], 4),
        any_field(&[&[7; 32], &[8; 32], &[9; 32]], 32),
        address.prop_map(Vec::from).boxed(),
    ])
}

fn tracker_response() -> BoxedStrategy<Vec<u8>> {
    let response = (0u8..3, -1i64..=1, 0usize..500, 0u8..2, any::<u8>());
    let response = response.prop_map(|(status, more, length, whole, fill)| {
        let length = if whole == 1 { length / 12 * 12 } else { length };
        let mut bytes = vec![status];
        bytes.extend((length as i64 + more).max(0).to_be_bytes()[4..].iter());
        bytes.resize(5 + length, fill);
        bytes
    });
    let length = prop_oneof![any::<u32>(), (64u32 << 10) - 2..=(64 << 10) + 2];
    let absurd = (0u8..3, length)
        .prop_map(|(status, length)| [&[status][..], &length.to_be_bytes()].concat());
    prop_oneof![4 => response, 1 => absurd].boxed()
}

fn peer_request() -> BoxedStrategy<Vec<u8>> {
    let extensions = [
        &b"CSX1\0\0\0\x01\0\0\0\0\0\0\0\0"[..],
        b"CSX1\0\0\0\x02\0\0\0\0\0\0\0\0",
        &[0; 16],
    ];
    let block = prop_oneof![6 => 0u64..20, 1 => any::<u64>(), 1 => Just(u64::MAX)];
    message(vec![
        any_field(&[b"CASCADE1"], 8),
        any_field(&extensions, 16),
        block.prop_map(|block| block.to_be_bytes().to_vec()).boxed(),
        any_field(&[&[1; 32], &[2; 32], &[3; 32], &[4; 32], &[5; 32]], 32),
    ])
}

fn peer_response() -> BoxedStrategy<Vec<u8>> {
    // The first two blocks are the same, so that a block often is the right one.
    let bodies: [&[u8]; 7] = [b"abc", b"def", b"g", b"xyz", b"", b"\xf0", b"not yet\n"];
    let length = prop_oneof![9 => Just(None), 1 => any::<u64>().prop_map(Some)];
    let status = prop_oneof![6 => Just(0u8), 2 => Just(2), 2 => Just(5), 1 => any::<u8>()];
    (status, proptest::sample::select(bodies.to_vec()), length)
        .prop_map(|(status, body, length)| {
            let length = length.unwrap_or(body.len() as u64);
            [&[status][..], &length.to_be_bytes(), body].concat()
        })
        .boxed()
}

/// As [`invariants::response::long_response`] spells them out: runs of the data, whole or not quite.
fn long_response() -> BoxedStrategy<Vec<u8>> {
    const SIZE: u32 = (1 << 20) + 3;
    let near = |right: u32| prop_oneof![8 => Just(right), 1 => right.saturating_sub(2)..right + 2];
    let run = |from, length| {
        (near(from), near(length)).prop_map(|(from, length)| {
            [
                &[0xda][..],
                &u32::to_be_bytes(from)[1..],
                &u32::to_be_bytes(length)[1..],
            ]
            .concat()
        })
    };
    // In one run, or in two with a piece between them that is right, missing or wrong.
    let broken = (run(0, 1 << 20), run(1 << 20, 3)).prop_map(|(one, other)| [one, other].concat());
    let body = prop_oneof![3 => run(0, SIZE), 2 => broken, 3 => run(SIZE, 5)];
    let length = prop_oneof![4 => Just(u64::from(SIZE)), 4 => Just(5), 1 => any::<u64>()];
    (prop_oneof![8 => Just(0u8), 1 => any::<u8>()], length, body)
        .prop_map(|(status, length, body)| [&[status][..], &length.to_be_bytes(), &body].concat())
        .boxed()
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    let line = (
        any::<u8>(),
        prop_oneof![8 => 0usize..40, 1 => 8180usize..8200],
        0u8..2,
    );
    let line = line.prop_map(|(fill, length, newline)| {
        let mut line = vec![fill; length];
        line.resize(length + usize::from(newline), b'\n');
        line
    });
    stream(line.boxed())
}

proptest! {
    // Each case is a connection, cut in three ways.
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_cascade_file_is_what_the_protocol_says(bytes in prop_oneof![cascade_file(), vec(any::<u8>(), 0..200)]) {
        invariants::formats::cascade_file(&bytes);
    }

    #[test]
    fn a_tracker_request_is_what_the_protocol_says(bytes in stream(tracker_request())) {
        invariants::formats::tracker_request(&bytes);
    }

    #[test]
    fn a_tracker_response_is_what_the_protocol_says(bytes in stream(tracker_response())) {
        invariants::formats::tracker_response(&bytes);
    }

    #[test]
    fn a_peer_request_is_what_the_protocol_says(bytes in stream(peer_request())) {
        invariants::formats::peer_request(&bytes);
    }

    #[test]
    fn what_a_download_makes_of_responses_does_not_depend_on_how_they_were_cut(input in cut(stream(peer_response()))) {
        invariants::response::peer_response(&input);
    }

    #[test]
    fn what_a_download_makes_of_long_blocks_does_not_depend_on_how_they_were_cut(input in cut(stream(long_response()))) {
        invariants::response::long_response(&input);
    }

    #[test]
    fn a_trackers_reply_does_not_depend_on_how_its_input_was_cut(input in cut(stream(tracker_request()))) {
        invariants::sessions::tracker(&input);
    }

    #[test]
    fn a_peers_replies_do_not_depend_on_how_their_input_was_cut(input in cut(stream(peer_request()))) {
        invariants::sessions::blocks(&input);
    }

    #[test]
    fn an_echo_does_not_depend_on_how_its_input_was_cut(input in cut(lines())) {
        invariants::sessions::echo(&input);
    }

    #[test]
    fn no_bytes_break_an_invariant(bytes in vec(any::<u8>(), 0..300)) {
        for (_, invariant) in invariants::ALL {
            invariant(&bytes);
        }
    }
}

#[test]
fn the_invariants_hold_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let of_corpus: BTreeSet<String> = names(&corpus);
    let of_invariants = invariants::ALL.map(|(name, _)| name.to_owned());
    assert_eq!(of_corpus, of_invariants.into());
    for (name, invariant) in invariants::ALL {
        for input in names(&corpus.join(name)) {
            // A failure says which it was.
            println!("{name}/{input}");
            invariant(&fs::read(corpus.join(name).join(input)).expect("readable"));
        }
    }
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}
