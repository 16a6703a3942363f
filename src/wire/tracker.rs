//! The tracker protocol: list, subscribe, unsubscribe. PROTOCOL §2 and §5.

use std::net::{Ipv4Addr, SocketAddrV4};

use thiserror::Error;

use super::{array, begins_like};
use crate::hash::{CascadeHash, HASH_LEN};

/// The first four bytes of a request.
pub const MAGIC: [u8; 4] = *b"CASC";
/// The protocol version spoken here.
pub const VERSION: u32 = 1;
/// Bytes of a request's header.
pub const HEADER_LEN: usize = 16;
/// Bytes of a request's body.
pub const BODY_LEN: usize = 38;
/// Bytes of a request.
pub const REQUEST_LEN: usize = HEADER_LEN + BODY_LEN;
/// Bytes of a response before its body.
pub const RESPONSE_HEADER_LEN: usize = 5;
/// Bytes of a peer record.
pub const RECORD_LEN: usize = 12;
/// The most peer records that a response carries.
pub const MAX_RECORDS: usize = 20;
/// The longest response body that is read: a tracker in use sends at most 240 bytes, another may send more.
pub const MAX_BODY: u32 = 64 << 10;
/// Status of a response that was successful.
pub const SUCCESS: u8 = 0;
/// Status of every error that our tracker answers.
pub const ERROR: u8 = 1;

/// What a client wants of the tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The peers known for a hash.
    List,
    /// To be registered, and the peers.
    Subscribe,
    /// To be forgotten (an extension, PROTOCOL §5).
    Unsubscribe,
}

impl Command {
    fn code(self) -> u32 {
        match self {
            Self::List => 1,
            Self::Subscribe => 2,
            Self::Unsubscribe => 3,
        }
    }

    fn from_code(code: u32) -> Option<Self> {
        [Self::List, Self::Subscribe, Self::Unsubscribe]
            .into_iter()
            .find(|command| command.code() == code)
    }
}

/// A request to a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What is wanted.
    pub command: Command,
    /// Of which file.
    pub hash: CascadeHash,
    /// Where the asking peer listens; [`NOBODY`] for a client that serves nothing.
    pub peer: SocketAddrV4,
}

/// The address of a client that serves nothing.
pub const NOBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);

/// Why bytes are no request.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// It does not begin with `CASC`.
    #[error("not a request of the tracker protocol")]
    Magic,
    /// A version other than 1.
    #[error("protocol version {0} is not known here, only 1")]
    Version(u32),
    /// A command other than list, subscribe and unsubscribe.
    #[error("command {0} is not known")]
    Command(u32),
    /// A body length other than 38.
    #[error("a request body has 38 bytes, not {0}")]
    BodyLength(u32),
    /// The connection ended within a request.
    #[error("the request ends too early")]
    Truncated,
}

impl Request {
    /// The 54 bytes of the request.
    pub fn encode(&self) -> [u8; REQUEST_LEN] {
        let mut bytes = [0; REQUEST_LEN];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.command.code().to_be_bytes());
        bytes[12..16].copy_from_slice(&(BODY_LEN as u32).to_be_bytes());
        bytes[16..48].copy_from_slice(&self.hash.0);
        bytes[48..52].copy_from_slice(&self.peer.ip().octets());
        bytes[52..54].copy_from_slice(&self.peer.port().to_be_bytes());
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
        if bytes.len() < HEADER_LEN {
            return Ok(None);
        }
        let number = |at| u32::from_be_bytes(array(bytes, at));
        if number(4) != VERSION {
            return Err(RequestError::Version(number(4)));
        }
        let command = Command::from_code(number(8)).ok_or(RequestError::Command(number(8)))?;
        if number(12) != BODY_LEN as u32 {
            return Err(RequestError::BodyLength(number(12)));
        }
        if bytes.len() < REQUEST_LEN {
            return Ok(None);
        }
        let hash = CascadeHash(array::<HASH_LEN>(bytes, 16));
        let peer = SocketAddrV4::new(
            array::<4>(bytes, 48).into(),
            u16::from_be_bytes(array(bytes, 52)),
        );
        Ok(Some(Self {
            command,
            hash,
            peer,
        }))
    }
}

/// One peer, as a tracker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerRecord {
    /// Where the peer listens.
    pub address: SocketAddrV4,
    /// Seconds since the Unix epoch.
    pub last_seen: u32,
    /// The tracker's operator vouches for this peer.
    pub good: bool,
}

impl PeerRecord {
    /// The 12 bytes of the record.
    pub fn encode(&self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[0..4].copy_from_slice(&self.address.ip().octets());
        bytes[4..6].copy_from_slice(&self.address.port().to_be_bytes());
        bytes[6..10].copy_from_slice(&self.last_seen.to_be_bytes());
        bytes[10] = self.good.into();
        bytes
    }

    /// Reads a record; the reserved byte is ignored.
    pub fn decode(bytes: &[u8; RECORD_LEN]) -> Self {
        Self {
            address: SocketAddrV4::new(
                array::<4>(bytes, 0).into(),
                u16::from_be_bytes(array(bytes, 4)),
            ),
            last_seen: u32::from_be_bytes(array(bytes, 6)),
            good: bytes[10] != 0,
        }
    }
}

/// A tracker's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// Status 0: peers.
    Peers(Vec<PeerRecord>),
    /// Any other status, and the tracker's words: a stranger's, to be escaped before they are shown.
    Refused {
        /// The status byte.
        status: u8,
        /// At most 4 KiB of the message.
        message: Vec<u8>,
    },
}

/// Why bytes are no response.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum ResponseError {
    /// A length beyond any sense.
    #[error("it announces {0} bytes, at most 65536 are believed")]
    TooLong(u32),
    /// A list that does not consist of whole records.
    #[error("its list has {0} bytes, which is no whole number of records")]
    PartialRecord(u32),
}

impl Response {
    /// The bytes of the response. Messages end with a newline, for clients that read by line.
    pub fn encode(&self) -> Vec<u8> {
        let (status, body) = match self {
            Self::Peers(records) => (
                SUCCESS,
                records.iter().flat_map(PeerRecord::encode).collect(),
            ),
            Self::Refused { status, message } => (*status, message.clone()),
        };
        let mut bytes = Vec::with_capacity(RESPONSE_HEADER_LEN + body.len());
        bytes.push(status);
        bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// A refusal with this message; the newline is added here.
    pub fn refusal(message: impl std::fmt::Display) -> Self {
        Self::Refused {
            status: ERROR,
            message: format!("{message}\n").into_bytes(),
        }
    }

    /// Reads a response from what has arrived; `None` while bytes are missing.
    ///
    /// # Errors
    /// As soon as it is certain that this will never be a response.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, ResponseError> {
        if bytes.len() < RESPONSE_HEADER_LEN {
            return Ok(None);
        }
        let (status, length) = (bytes[0], u32::from_be_bytes(array(bytes, 1)));
        if length > MAX_BODY {
            return Err(ResponseError::TooLong(length));
        }
        if status == SUCCESS && !length.is_multiple_of(RECORD_LEN as u32) {
            return Err(ResponseError::PartialRecord(length));
        }
        let Some(body) = bytes.get(RESPONSE_HEADER_LEN..RESPONSE_HEADER_LEN + length as usize)
        else {
            return Ok(None);
        };
        if status != SUCCESS {
            let shown = body.len().min(super::MAX_MESSAGE as usize);
            return Ok(Some(Self::Refused {
                status,
                message: body[..shown].to_vec(),
            }));
        }
        Ok(Some(Self::Peers(
            body.as_chunks::<RECORD_LEN>()
                .0
                .iter()
                .map(PeerRecord::decode)
                .collect(),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> impl Strategy<Value = Request> {
        (1u32..=3, any::<[u8; 32]>(), any::<u32>(), any::<u16>()).prop_map(
            |(code, hash, ip, port)| Request {
                command: Command::from_code(code).expect("a known code"),
                hash: CascadeHash(hash),
                peer: SocketAddrV4::new(ip.into(), port),
            },
        )
    }

    fn response() -> impl Strategy<Value = Response> {
        let record = (any::<u32>(), any::<u16>(), any::<u32>(), any::<bool>()).prop_map(
            |(ip, port, last_seen, good)| PeerRecord {
                address: SocketAddrV4::new(ip.into(), port),
                last_seen,
                good,
            },
        );
        prop_oneof![
            proptest::collection::vec(record, 0..30).prop_map(Response::Peers),
            (1u8.., proptest::collection::vec(any::<u8>(), 0..100))
                .prop_map(|(status, message)| Response::Refused { status, message }),
        ]
    }

    #[test]
    fn a_request_is_laid_out_as_the_protocol_says() {
        let request = Request {
            command: Command::Subscribe,
            hash: CascadeHash([0xab; 32]),
            peer: SocketAddrV4::new([192, 0, 2, 7].into(), 0x1234),
        };
        let mut expected = b"CASC\0\0\0\x01\0\0\0\x02\0\0\0\x26".to_vec();
        expected.extend_from_slice(&[0xab; 32]);
        expected.extend_from_slice(&[192, 0, 2, 7, 0x12, 0x34]);
        assert_eq!(request.encode().to_vec(), expected);
    }

    #[test]
    fn a_record_is_laid_out_as_the_protocol_says() {
        let record = PeerRecord {
            address: SocketAddrV4::new([10, 1, 2, 3].into(), 80),
            last_seen: 0x0102_0304,
            good: true,
        };
        assert_eq!(record.encode(), [10, 1, 2, 3, 0, 80, 1, 2, 3, 4, 1, 0]);
    }

    #[test]
    fn a_wrong_request_is_known_as_early_as_possible() {
        assert_eq!(Request::decode(b"CAX"), Err(RequestError::Magic));
        assert_eq!(
            Request::decode(b"CASC\0\0\0\x02\0\0\0\x01\0\0\0\x26"),
            Err(RequestError::Version(2))
        );
        assert_eq!(
            Request::decode(b"CASC\0\0\0\x01\0\0\0\x09\0\0\0\x26"),
            Err(RequestError::Command(9))
        );
        let long = b"CASC\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff";
        assert_eq!(
            Request::decode(long),
            Err(RequestError::BodyLength(u32::MAX))
        );
    }

    #[test]
    fn a_length_beyond_the_cap_is_not_believed() {
        assert_eq!(
            Response::decode(b"\0\xff\xff\xff\xff"),
            Err(ResponseError::TooLong(u32::MAX))
        );
        assert_eq!(
            Response::decode(b"\0\0\0\0\x0d"),
            Err(ResponseError::PartialRecord(13))
        );
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
        fn responses_read_back_whole_byte_by_byte_and_with_trailing_data(response in response(), more: Vec<u8>) {
            let mut bytes = response.encode();
            for cut in 0..bytes.len() {
                prop_assert_eq!(Response::decode(&bytes[..cut]), Ok(None));
            }
            prop_assert_eq!(Response::decode(&bytes), Ok(Some(response.clone())));
            bytes.extend(more);
            prop_assert_eq!(Response::decode(&bytes), Ok(Some(response)));
        }
    }
}
