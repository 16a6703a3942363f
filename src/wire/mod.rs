//! The messages of the network: encoding and decoding, free of I/O.
//!
//! Every decoder takes what has arrived so far and answers one of three things: a message and how many bytes it
//! took, "not yet", or an error that no further byte can mend. None of them allocates by a length that the other
//! side named before that length was capped.
//!
//! ```
//! use cascade::hash::CascadeHash;
//! use cascade::wire::peer::{Request, ResponseHeader, Status};
//!
//! let request = Request { hash: CascadeHash::of(b"a cascade file"), block: 7, extension: None };
//! let bytes = request.encode();
//! assert_eq!(Request::decode(&bytes)?, Some(request));
//! // So far it may become a request; and this never will.
//! assert_eq!(Request::decode(&bytes[..63])?, None);
//! assert!(Request::decode(b"GET / HTTP/1.1").is_err());
//!
//! let header = ResponseHeader { status: Status::NotPresent, length: 0 };
//! assert_eq!(header.encode(), [2, 0, 0, 0, 0, 0, 0, 0, 0]);
//! # Ok::<(), cascade::wire::peer::RequestError>(())
//! ```

pub mod peer;
pub mod tracker;

/// The longest human-readable message that is read from the network, in bytes.
pub const MAX_MESSAGE: u64 = 4096;

/// Copies `N` bytes at `at`; the caller has checked the length.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// Whether `bytes`, as far as they go, begin as `magic` does.
fn begins_like(bytes: &[u8], magic: &[u8]) -> bool {
    let common = bytes.len().min(magic.len());
    bytes[..common] == magic[..common]
}
