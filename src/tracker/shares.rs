//! How much of the registry one file and one source may take, so that nobody can fill it alone.

use std::net::IpAddr;

use thiserror::Error;

/// Why the registry does not take a peer. What is displayed is sent to the client.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The hash is none of those that are tracked.
    #[error("this tracker does not track the file")]
    NotTracked,
    /// All records are taken.
    #[error("the registry is full")]
    Full,
    /// The file has as many peers as one file may have.
    #[error("too many peers are registered for this file")]
    HashShare,
    /// The source has as many records as one source may have.
    #[error("too many peers are registered from your address")]
    SourceShare,
    /// The owner changed the registry each time that it was read.
    #[error("the registry is busy, try again")]
    Busy,
}

/// The bounds of a registry, in records.
///
/// The number of files of an open tracker needs no bound of its own: a file is only known while it has a record, so
/// there are never more files than records, and a source with a share of the records has no more of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// In all.
    pub capacity: u32,
    /// For one file.
    pub per_hash: u32,
    /// From one source.
    pub per_source: u32,
}

impl Shares {
    /// The bounds of a registry with room for `capacity` records, of these files (`None`: of any).
    ///
    /// A source may have a sixteenth, or 16 in a small registry, but never more than half. A file has an equal share
    /// among those that are named, but never less than a sixteenth; where any may come it is treated as a source.
    pub fn new(capacity: u32, hashes: Option<usize>) -> Self {
        let capacity = capacity.max(1);
        let sixteenth = (capacity / 16).max(16).min((capacity / 2).max(1));
        let per_hash = hashes.map_or(sixteenth, |hashes| {
            let hashes = u32::try_from(hashes.max(1)).unwrap_or(u32::MAX);
            (capacity / hashes).max(capacity / 16).max(1)
        });
        Self {
            capacity,
            per_hash,
            per_source: sixteenth,
        }
    }
}

/// Who registers: the address of a TCP connection, IPv4 as it is, IPv6 by its first 64 bits, all of which usually
/// belong to one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Source(pub u64);

/// What stands before an IPv4 address: no IPv6 source begins so, for that is a multicast prefix.
const IPV4: u64 = 0xffff_ffff << 32;

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IPV4 | u64::from(address.to_bits())),
            IpAddr::V6(address) => Self((address.to_bits() >> 64) as u64),
        }
    }
}

impl From<Source> for IpAddr {
    fn from(source: Source) -> Self {
        if source.0 & IPV4 == IPV4 {
            Self::V4((source.0 as u32).into())
        } else {
            Self::V6((u128::from(source.0) << 64).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gets_a_sixteenth_or_16_but_never_more_than_half() {
        for (capacity, share) in [
            (1, 1),
            (2, 1),
            (10, 5),
            (32, 16),
            (100, 16),
            (256, 16),
            (1600, 100),
        ] {
            assert_eq!(
                Shares::new(capacity, Some(1)).per_source,
                share,
                "{capacity}"
            );
            assert_eq!(Shares::new(capacity, None).per_hash, share, "{capacity}");
        }
    }

    #[test]
    fn a_named_hash_gets_an_equal_share_but_never_less_than_a_sixteenth() {
        for (capacity, hashes, share) in [
            (1600, 1, 1600),
            (1600, 4, 400),
            (1600, 1000, 100),
            (1, 9, 1),
            (8, 3, 2),
        ] {
            assert_eq!(
                Shares::new(capacity, Some(hashes)).per_hash,
                share,
                "{capacity} {hashes}"
            );
        }
    }

    #[test]
    fn sources_are_ipv4_addresses_and_ipv6_networks() {
        for (address, source) in [
            ("192.0.2.1", "192.0.2.1"),
            ("0.0.0.0", "0.0.0.0"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::1", "::"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            let source: IpAddr = source.parse().expect("an address");
            assert_eq!(IpAddr::from(Source::from(address)), source);
        }
    }
}
