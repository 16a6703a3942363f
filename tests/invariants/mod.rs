//! What must hold of whatever a stranger sends.
//!
//! An invariant takes bytes and panics where it does not hold. The property tests (tests/properties.rs) give it messages
//! that are nearly right, and everything in tests/corpus; the fuzz targets (fuzz/) give it what libFuzzer makes up.
//! Each is held against the words of PROTOCOL.md, said once more here in the simplest way: nothing of the decoders
//! under test is used to say what they should have found.
//!
//! | module | what it is about |
//! |---|---|
//! | [`formats`] | cascade files, and the messages of both protocols |
//! | [`response`] | a peer's responses, as a download takes them in |
//! | [`sessions`] | a whole connection of each service, however its input is cut |

pub mod formats;
pub mod response;
pub mod sessions;

/// An invariant, by the name of its fuzz target.
pub type Named = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Named; 9] = [
    ("cascade_file", formats::cascade_file),
    ("tracker_request", formats::tracker_request),
    ("tracker_response", formats::tracker_response),
    ("peer_request", formats::peer_request),
    ("peer_response", response::peer_response),
    ("long_response", response::long_response),
    ("session_tracker", sessions::tracker),
    ("session_blocks", sessions::blocks),
    ("session_echo", sessions::echo),
];

/// A stream, and where it is cut. The first byte of an input is the number of cuts; a byte for each is the length of a
/// piece, less one; the stream is what follows, and what the pieces leave of it comes in one.
pub fn cut(input: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let Some((count, rest)) = input.split_first() else {
        return (&[], Vec::new());
    };
    let (lengths, stream) = rest.split_at(rest.len().min(usize::from(*count)));
    let mut left = stream;
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, after) = left.split_at(left.len().min(usize::from(*length) + 1));
        pieces.push(piece);
        left = after;
    }
    pieces.push(left);
    pieces.retain(|piece| !piece.is_empty());
    (stream, pieces)
}

/// The bytes at `at` as a number.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length]
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// What is shown of an error: one line, in which nothing of a stranger's moves a terminal's cursor.
fn assert_shown(error: &impl std::fmt::Display) {
    let shown = error.to_string();
    assert!(
        !shown.is_empty() && !shown.contains(char::is_control),
        "{shown:?}"
    );
}
