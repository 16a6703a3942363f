//! The peer protocol: requests for blocks, and the header of a response. PROTOCOL §3 and §5.

use thiserror::Error;

use super::{array, begins_like};
use crate::hash::CascadeHash;

/// The first eight bytes of a request.
pub const MAGIC: [u8; 8] = *b"CASCADE1";
/// Marks the reserved bytes of a request that uses an extension.
pub const EXTENSION_MAGIC: [u8; 4] = *b"CSX1";
/// Bytes of a request.
pub const REQUEST_LEN: usize = 64;
/// Bytes of a response before its body.
pub const RESPONSE_HEADER_LEN: usize = 9;
/// The longest cascade file that WANT_META transfers, in bytes.
pub const MAX_META: u64 = 64 << 20;

const WANT_MAP: u32 = 1;
const WANT_META: u32 = 2;

/// What a request wants instead of a block (PROTOCOL §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// The map of the blocks that the peer has.
    Map,
    /// The cascade file.
    Meta,
}

/// A request to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Of which file.
    pub hash: CascadeHash,
    /// Which block.
    pub block: u64,
    /// What is wanted instead, of a peer that knows the extension.
    pub extension: Option<Extension>,
}

/// Why bytes are no request.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// It does not begin with `CASCADE1`.
    #[error("not a request of the peer protocol")]
    Magic,
    /// Both extension flags are set.
    #[error("at most one extension can be asked for at once")]
    TwoExtensions,
    /// The connection ended within a request.
    #[error("the request ends too early")]
    Truncated,
}

impl Request {
    /// The 64 bytes of the request.
    pub fn encode(&self) -> [u8; REQUEST_LEN] {
        let mut bytes = [0; REQUEST_LEN];
        bytes[0..8].copy_from_slice(&MAGIC);
        if let Some(extension) = self.extension {
            let flags = match extension {
                Extension::Map => WANT_MAP,
                Extension::Meta => WANT_META,
            };
            bytes[8..12].copy_from_slice(&EXTENSION_MAGIC);
            bytes[12..16].copy_from_slice(&flags.to_be_bytes());
        }
        bytes[24..32].copy_from_slice(&self.block.to_be_bytes());
        bytes[32..64].copy_from_slice(&self.hash.0);
        bytes
    }

    /// Reads a request from what has arrived; `None` while bytes are missing.
    ///
    /// # Errors
    /// As soon as it is certain that this will never be a request.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, RequestError> {
        if !begins_like(bytes, &MAGIC) {
            return Err(RequestError::Magic);
        }
        if bytes.len() < REQUEST_LEN {
            return Ok(None);
        }
        let extended = bytes[8..12] == EXTENSION_MAGIC;
        let flags = if extended {
            u32::from_be_bytes(array(bytes, 12))
        } else {
            0
        };
        let extension = match flags & (WANT_MAP | WANT_META) {
            0 => None,
            WANT_MAP => Some(Extension::Map),
            WANT_META => Some(Extension::Meta),
            _ => return Err(RequestError::TwoExtensions),
        };
        Ok(Some(Self {
            hash: CascadeHash(array(bytes, 32)),
            block: u64::from_be_bytes(array(bytes, 24)),
            extension,
        }))
    }
}

/// The first byte of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The body is the block.
    Success,
    /// This peer does not have the file.
    UnknownHash,
    /// This peer does not have the block yet.
    NotPresent,
    /// There is no such block.
    NoSuchBlock,
    /// The request could not be parsed.
    BadRequest,
    /// The body is the map of the blocks that are present (an extension).
    Map,
    /// The body is the cascade file (an extension).
    Meta,
    /// A status that no protocol knows.
    Other(u8),
}

impl From<u8> for Status {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Self::Success,
            1 => Self::UnknownHash,
            2 => Self::NotPresent,
            3 => Self::NoSuchBlock,
            4 => Self::BadRequest,
            5 => Self::Map,
            6 => Self::Meta,
            other => Self::Other(other),
        }
    }
}

impl From<Status> for u8 {
    fn from(status: Status) -> Self {
        match status {
            Status::Success => 0,
            Status::UnknownHash => 1,
            Status::NotPresent => 2,
            Status::NoSuchBlock => 3,
            Status::BadRequest => 4,
            Status::Map => 5,
            Status::Meta => 6,
            Status::Other(other) => other,
        }
    }
}

/// What stands before the body of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHeader {
    /// What the body is.
    pub status: Status,
    /// How long the body is, by the peer's word.
    pub length: u64,
}

impl ResponseHeader {
    /// The nine bytes of the header.
    pub fn encode(&self) -> [u8; RESPONSE_HEADER_LEN] {
        let mut bytes = [0; RESPONSE_HEADER_LEN];
        bytes[0] = self.status.into();
        bytes[1..9].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads a header from the first nine bytes of a response; `None` while bytes are missing.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<RESPONSE_HEADER_LEN>()?;
        Some(Self {
            status: header[0].into(),
            length: u64::from_be_bytes(array(header, 1)),
        })
    }
}

/// A whole response that carries a message; a newline is added, for clients that read by line.
pub fn message(status: Status, text: impl std::fmt::Display) -> Vec<u8> {
    let text = format!("{text}\n");
    let mut bytes = ResponseHeader {
        status,
        length: text.len() as u64,
    }
    .encode()
    .to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> impl Strategy<Value = Request> {
        let extension = prop_oneof![
            Just(None),
            Just(Some(Extension::Map)),
            Just(Some(Extension::Meta))
        ];
        (any::<[u8; 32]>(), any::<u64>(), extension).prop_map(|(hash, block, extension)| Request {
            hash: CascadeHash(hash),
            block,
            extension,
        })
    }

    #[test]
    fn a_request_is_laid_out_as_the_protocol_says() {
        let mut request = Request {
            hash: CascadeHash([0xab; 32]),
            block: 0x0102,
            extension: None,
        };
        let mut expected = b"CASCADE1".to_vec();
        expected.extend_from_slice(&[0; 16]);
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 1, 2]);
        expected.extend_from_slice(&[0xab; 32]);
        assert_eq!(request.encode().to_vec(), expected);
        request.extension = Some(Extension::Meta);
        expected[8..16].copy_from_slice(b"CSX1\0\0\0\x02");
        assert_eq!(request.encode().to_vec(), expected);
    }

    #[test]
    fn a_message_ends_with_a_newline_that_its_length_counts() {
        assert_eq!(
            message(Status::NotPresent, "not yet"),
            b"\x02\0\0\0\0\0\0\0\x08not yet\n"
        );
    }

    #[test]
    fn both_extensions_at_once_are_no_request_and_other_flags_are_ignored() {
        let mut bytes = Request {
            hash: CascadeHash([1; 32]),
            block: 0,
            extension: Some(Extension::Map),
        }
        .encode();
        bytes[12..16].copy_from_slice(&0xffff_fffdu32.to_be_bytes());
        assert!(matches!(
            Request::decode(&bytes),
            Ok(Some(Request {
                extension: Some(Extension::Map),
                ..
            }))
        ));
        bytes[15] = 3;
        assert_eq!(Request::decode(&bytes), Err(RequestError::TwoExtensions));
    }

    proptest! {
        #[test]
        fn requests_read_back_whole_byte_by_byte_and_with_trailing_data(request in request(), more: Vec<u8>) {
            let mut bytes = request.encode().to_vec();
            for cut in 0..bytes.len() {
                prop_assert_eq!(Request::decode(&bytes[..cut]), Ok(None));
            }
            prop_assert_eq!(Request::decode(&bytes), Ok(Some(request)));
            bytes.extend(more);
            prop_assert_eq!(Request::decode(&bytes), Ok(Some(request)));
        }

        #[test]
        fn garbage_in_the_reserved_bytes_means_nothing(request in request(), garbage: [u8; 16]) {
            prop_assume!(garbage[..4] != EXTENSION_MAGIC);
            let mut bytes = request.encode();
            bytes[8..24].copy_from_slice(&garbage);
            prop_assert_eq!(Request::decode(&bytes), Ok(Some(Request { extension: None, ..request })));
        }

        #[test]
        fn response_headers_read_back(status: u8, length: u64, more: Vec<u8>) {
            let header = ResponseHeader { status: status.into(), length };
            let mut bytes = header.encode().to_vec();
            for cut in 0..bytes.len() {
                prop_assert_eq!(ResponseHeader::decode(&bytes[..cut]), None);
            }
            bytes.extend(more);
            prop_assert_eq!(ResponseHeader::decode(&bytes), Some(header));
        }
    }
}
