//! The three kinds of SHA-256 that the network uses, as three types that cannot be confused.
//!
//! * [`CascadeHash`] is the hash of a cascade file and names a file on the network.
//! * [`FileHash`] is the hash of a whole data file.
//! * [`BlockHash`] is the hash of one block.
//!
//! PROTOCOL §1.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Bytes in a SHA-256.
pub const HASH_LEN: usize = 32;

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a hash is 64 hexadecimal digits")]
pub struct NotAHash;

macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(pub [u8; HASH_LEN]);

        impl $name {
            /// Hashes `bytes`.
            pub fn of(bytes: &[u8]) -> Self {
                Self(Sha256::digest(bytes).into())
            }

            /// Ends a hash that was computed in pieces.
            pub fn finish(hasher: Sha256) -> Self {
                Self(hasher.finalize().into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl From<$name> for String {
            fn from(hash: $name) -> Self {
                hash.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAHash;

            fn try_from(text: String) -> Result<Self, NotAHash> {
                text.parse()
            }
        }

        impl FromStr for $name {
            type Err = NotAHash;

            /// Reads 64 hexadecimal digits of either case.
            fn from_str(text: &str) -> Result<Self, NotAHash> {
                let mut bytes = [0; HASH_LEN];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| NotAHash)?;
                Ok(Self(bytes))
            }
        }
    };
}

hash_type! {
    /// The SHA-256 of a cascade file: the name of a file on the network.
    CascadeHash
}
hash_type! {
    /// The SHA-256 of a whole data file.
    FileHash
}
hash_type! {
    /// The SHA-256 of one block of a data file.
    BlockHash
}

/// Feeds two hashes in turns, in about three quarters of the time that one after the other takes.
///
/// Every step of a SHA-256 waits for the one before it, also in a processor that has instructions for it; the steps of
/// another, if they come soon enough, fill the gaps. So a turn is as short as can be.
pub fn update_both(first: (&mut Sha256, &[u8]), second: (&mut Sha256, &[u8])) {
    const TURN: usize = 64;
    let together = first.1.len().min(second.1.len());
    let (these, this_rest) = first.1.split_at(together);
    let (those, that_rest) = second.1.split_at(together);
    for (this, that) in these.chunks(TURN).zip(those.chunks(TURN)) {
        first.0.update(this);
        second.0.update(that);
    }
    first.0.update(this_rest);
    second.0.update(that_rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_nothing_is_the_known_one_and_reads_back() {
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(FileHash::of(b"").to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(FileHash::of(b"")));
    }

    #[test]
    fn hashes_that_are_fed_in_turns_are_those_of_each() {
        let bytes: Vec<u8> = (0..300u16).map(|at| at as u8).collect();
        for (one, other) in [(0, 0), (0, 5), (300, 0), (64, 64), (65, 300), (200, 199)] {
            let (mut this, mut that) = (Sha256::new(), Sha256::new());
            for _ in 0..2 {
                update_both((&mut this, &bytes[..one]), (&mut that, &bytes[..other]));
            }
            let twice = |length| FileHash::of(&[&bytes[..length], &bytes[..length]].concat());
            assert_eq!(FileHash::finish(this), twice(one), "{one} and {other}");
            assert_eq!(FileHash::finish(that), twice(other), "{one} and {other}");
        }
    }

    #[test]
    fn anything_but_64_hex_digits_is_no_hash() {
        for text in ["", "abc", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65)] {
            assert_eq!(text.parse::<CascadeHash>(), Err(NotAHash), "{text:?}");
        }
    }
}
