//! Quotas: how much of the registry one file and one source may take, so that nobody can fill it alone.

use thiserror::Error;

/// Why the registry refuses a peer. The message is sent to the client.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The hash is none of those that are tracked.
    #[error(
        "this tracker does not track the file; add its cascade file there, or start it with --open"
    )]
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
    /// The source has registered as many other addresses than its own as one source may.
    #[error("too many peers at other addresses are registered from your address")]
    ForeignShare,
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
    /// Of these, at other addresses than the source's own.
    pub foreign: u32,
}

impl Shares {
    /// The bounds of a registry with room for `capacity` records, of these files (`None`: of any).
    ///
    /// A source may have a sixteenth, or 16 in a small registry, but never more than half. A file has an equal share
    /// among those that are named, but never less than a sixteenth; where any may come it is treated as a source.
    /// Of a source's share a sixteenth, or 16, may be at other addresses: a host with several, or one that registers
    /// others, needs few; whoever would have others connect to a victim, or to nobody, needs many.
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
            foreign: (sixteenth / 16).max(16).min(sixteenth),
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
}
