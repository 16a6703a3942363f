//! Cascade files, and the messages of both protocols.

use cascade::cascade_file::CascadeFile;
use cascade::hash::CascadeHash;
use cascade::service::tracker::Change;
use cascade::sys::record::Record;
use cascade::text::escape;
use cascade::wire::tracker::Response;
use cascade::wire::{MAX_MESSAGE, peer, tracker};

use super::{assert_shown, number};

/// A cascade file is valid exactly where PROTOCOL §1 says so, reads back to the byte, and has blocks that cover the
/// data file without a gap.
pub fn cascade_file(bytes: &[u8]) {
    match CascadeFile::parse(bytes) {
        Err(error) => {
            assert!(!is_cascade_file(bytes), "it is one: {error}");
            assert_shown(&error);
        }
        Ok(file) => {
            assert!(is_cascade_file(bytes), "it is none");
            assert_eq!(file.encode(), bytes);
            assert_eq!(file.hash(), CascadeHash::of(bytes));
            assert_covered(&file);
        }
    }
}

fn is_cascade_file(bytes: &[u8]) -> bool {
    if bytes.len() < 64 || bytes[..8] != *b"CASCADE1" {
        return false;
    }
    let (length, block_size) = (number(bytes, 16, 8), number(bytes, 24, 8));
    let blocks = |size: u64| u128::from(length.div_ceil(size));
    block_size > 0 && bytes.len() as u128 == 64 + 32 * blocks(block_size)
}

fn assert_covered(file: &CascadeFile) {
    let geometry = file.geometry();
    assert_eq!(file.block_hashes().len(), geometry.blocks() as usize);
    let mut end = 0;
    for block in 0..geometry.blocks() {
        let range = geometry.range(block).expect("a block of the file");
        assert_eq!(range.start, end);
        assert_eq!(range.end - range.start, geometry.block_length(block));
        assert!((1..=geometry.block_size()).contains(&geometry.block_length(block)));
        end = range.end;
    }
    assert_eq!(end, geometry.length());
    assert_eq!(geometry.range(geometry.blocks()), None);
}

/// What a decoder makes of `bytes`, which may be no more than the beginning of what is to come: as soon as it is
/// certain, and from then on the same, whatever follows. It never waits for more than `longest` bytes.
fn decide<T: PartialEq + std::fmt::Debug, E: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    longest: usize,
    decode: impl Fn(&[u8]) -> Result<Option<T>, E>,
) -> Result<Option<(T, usize)>, E> {
    let first = (0..=bytes.len()).find_map(|end| match decode(&bytes[..end]) {
        Ok(None) => None,
        decided => Some((decided, end)),
    });
    let Some((decided, end)) = first else {
        assert!(bytes.len() < longest, "it waits for ever");
        return Ok(None);
    };
    assert_eq!(
        decode(bytes),
        decided,
        "it changes its mind after {end} bytes"
    );
    Ok(decided?.map(|message| (message, end)))
}

/// A request to a tracker is what PROTOCOL §2 and §5 say, and nothing else is one; a report of a child likewise.
pub fn tracker_request(bytes: &[u8]) {
    let wanted = bytes.len() >= 54 && bytes[..8] == *b"CASC\0\0\0\x01" && {
        let (command, length) = (number(bytes, 8, 4), number(bytes, 12, 4));
        (1..=3).contains(&command) && length == 38
    };
    match decide(bytes, 54, tracker::Request::decode) {
        Ok(None) => assert!(!wanted),
        Err(error) => {
            assert!(!wanted, "it is one: {error}");
            assert_shown(&error);
        }
        Ok(Some((request, end))) => {
            assert!(wanted && end == 54);
            assert_eq!(request.encode(), bytes[..54]);
            assert_eq!(request.hash.0, bytes[16..48]);
            assert_eq!(u64::from(request.peer.ip().to_bits()), number(bytes, 48, 4));
            assert_eq!(u64::from(request.peer.port()), number(bytes, 52, 2));
        }
    }
    let reported = wanted && bytes.len() == 54 && number(bytes, 8, 4) != 1;
    let change = Change::decode(bytes);
    assert_eq!(change.is_some(), reported, "a list changes nothing");
    if let Some(change) = change {
        let mut packet = Vec::new();
        change.encode(&mut packet);
        assert_eq!(packet, bytes);
    }
}

/// A tracker's response has whole records or a message that can be shown, and is never longer than 64 KiB.
pub fn tracker_response(bytes: &[u8]) {
    const LONGEST: u64 = 64 << 10;
    let length = (bytes.len() >= 5).then(|| number(bytes, 1, 4));
    let believed = length
        .is_some_and(|length| length <= LONGEST && (bytes[0] != 0 || length.is_multiple_of(12)));
    match decide(bytes, 5 + LONGEST as usize, Response::decode) {
        Ok(None) => {
            let waits = |length| believed && (bytes.len() as u64) < 5 + length;
            assert!(length.is_none_or(waits), "it waits in vain");
        }
        Err(error) => {
            assert!(length.is_some() && !believed, "it is one: {error}");
            assert_shown(&error);
        }
        Ok(Some((response, end))) => {
            assert!(believed && Some(end as u64) == length.map(|length| 5 + length));
            assert_response(&response, &bytes[..end]);
        }
    }
}

fn assert_response(response: &Response, bytes: &[u8]) {
    let body = &bytes[5..];
    match response {
        Response::Peers(records) => {
            assert_eq!(bytes[0], 0);
            let (entries, rest) = body.as_chunks::<12>();
            assert!(rest.is_empty() && entries.len() == records.len());
            for (record, entry) in records.iter().zip(entries) {
                // The reserved byte and whatever else is not 0 in a flag mean nothing.
                assert_eq!(record.encode()[..10], entry[..10]);
                assert_eq!(record.encode()[10..], [u8::from(entry[10] != 0), 0]);
            }
            assert_eq!(
                Response::decode(&response.encode()).as_ref(),
                Ok(&Some(response.clone()))
            );
        }
        Response::Refused { status, message } => {
            assert_eq!((*status, bytes[0] == 0), (bytes[0], false));
            let shown = body.len().min(MAX_MESSAGE as usize);
            assert_eq!(message, &body[..shown]);
            assert!(!escape(message).contains(char::is_control));
        }
    }
}

/// A request to a peer is 64 bytes that begin with the magic; reserved bytes mean something only after `CSX1`.
pub fn peer_request(bytes: &[u8]) {
    let extension = |flags: u64| match flags & 3 {
        0 => Some(None),
        1 => Some(Some(peer::Extension::Map)),
        2 => Some(Some(peer::Extension::Meta)),
        _ => None,
    };
    let wanted = (bytes.len() >= 64 && bytes[..8] == *b"CASCADE1")
        .then(|| match &bytes[8..12] {
            b"CSX1" => extension(number(bytes, 12, 4)),
            _ => Some(None),
        })
        .flatten();
    match decide(bytes, 64, peer::Request::decode) {
        Ok(None) => assert_eq!(wanted, None),
        Err(error) => {
            assert_eq!(wanted, None, "it is one: {error}");
            assert_shown(&error);
        }
        Ok(Some((request, end))) => {
            assert_eq!((Some(request.extension), end), (wanted, 64));
            assert_eq!(request.block, number(bytes, 24, 8));
            assert_eq!(request.hash.0, bytes[32..64]);
            assert_eq!(peer::Request::decode(&request.encode()), Ok(Some(request)));
        }
    }
}
