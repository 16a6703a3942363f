//! Values that are typed: sizes, rates, times, and what a file on the network is named by.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::hash::CascadeHash;
use crate::net::address::ListenAddress;
use crate::net::link::{Link, LinkError, SCHEME};

/// A file on the network: by its hash, or by its cascade file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// 64 hexadecimal digits.
    Hash(CascadeHash),
    /// The path of a cascade file.
    CascadeFile(PathBuf),
}

/// A path need not be text.
pub(super) fn target_parser() -> impl TypedValueParser<Value = Target> {
    OsStringValueParser::new().map(target)
}

pub(super) fn target(text: OsString) -> Target {
    let hash = text.to_str().and_then(|text| text.parse().ok());
    hash.map_or_else(|| Target::CascadeFile(text.into()), Target::Hash)
}

/// A file to download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// By the path of its cascade file.
    CascadeFile(PathBuf),
    /// By a link, which has all that is needed.
    Link(Link),
    /// By its hash alone.
    Hash(CascadeHash),
}

pub(super) fn wanted_parser() -> impl TypedValueParser<Value = Wanted> {
    OsStringValueParser::new().try_map(wanted)
}

/// What begins like a link is one, or a mistake.
pub(crate) fn wanted(text: OsString) -> Result<Wanted, LinkError> {
    match text.to_str() {
        Some(link) if link.starts_with(SCHEME) => link.parse().map(Wanted::Link),
        _ => Ok(match target(text) {
            Target::Hash(hash) => Wanted::Hash(hash),
            Target::CascadeFile(path) => Wanted::CascadeFile(path),
        }),
    }
}

pub(super) fn pool_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size @ 1..=1024) => Ok(size),
        _ => Err("a pool has 1 to 1024 members".into()),
    }
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(0)) => Err("a block has at least one byte".into()),
        Ok(ByteSize(size)) => Ok(size),
        Err(_) => Err("a size is a number of bytes, or has a unit: 65536, 64KiB, 1MiB".into()),
    }
}

/// Seconds with a fraction, for measurements.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) => Err("at least 0.01 and at most 86400".into()),
        Err(_) => Err("a number of seconds, such as 2 or 0.5".into()),
    }
}

pub(super) fn rate(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(0)) => Err("a rate is at least one byte per second".into()),
        Ok(ByteSize(rate)) => Ok(rate),
        Err(_) => Err("a rate is bytes per second, or has a unit: 500000, 500KiB, 2MiB".into()),
    }
}

/// Where others may look: an address is needed, for a page that tells who serves what is not for everybody by mistake.
pub(super) fn http_address(text: &str) -> Result<ListenAddress, String> {
    match text.parse::<ListenAddress>() {
        Ok(address) if address.host.is_some() => Ok(address),
        Ok(address) => Err(format!(
            "an address is needed as well: 127.0.0.1:{0}, or 0.0.0.0:{0} for everybody",
            address.port
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// How long somebody is waited for: not for ever, but for a moment.
pub(super) fn patience(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time < Duration::from_millis(1) => Err("at least a millisecond".into()),
        time => Ok(time),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    // Ten years: far beyond any use, and small enough that no sum with a clock overflows.
    const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
    let parsed = match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text),
    };
    match parsed {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err("at most ten years".into()),
        Err(_) => Err("a time is a number of seconds, or has a unit: 90, 90s, 5m, 2h".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units_and_plain_bytes() {
        assert_eq!(size("65536"), Ok(65536));
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        for text in ["0", "", "-1", "1XiB", "99999999999999999999"] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn rates_take_units_and_plain_bytes() {
        assert_eq!(rate("500000"), Ok(500_000));
        assert_eq!(rate("2MiB"), Ok(2 << 20));
        for text in ["0", "", "-1", "fast", "1MiB/s"] {
            assert!(rate(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_take_units_and_plain_seconds() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for text in ["", "-1", "soon", "18446744073709551615"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn measurements_take_fractions_of_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        for text in ["", "0", "-1", "soon", "nan", "inf", "1e9"] {
            assert!(seconds(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sixty_four_hex_digits_are_a_hash_unless_a_directory_stands_before_them() {
        let digits = "ab".repeat(32);
        assert!(matches!(target(digits.clone().into()), Target::Hash(_)));
        assert!(matches!(
            target(format!("./{digits}").into()),
            Target::CascadeFile(_)
        ));
        assert!(matches!(target("x.cascade".into()), Target::CascadeFile(_)));
    }

    #[test]
    fn what_begins_like_a_link_is_one_or_a_mistake() {
        let link = format!("cascade://host:80/{}/x", "ab".repeat(32));
        assert!(matches!(wanted(link.into()), Ok(Wanted::Link(_))));
        assert!(wanted("cascade://x".into()).is_err());
        let file = wanted("./cascade://x".into());
        assert!(matches!(file, Ok(Wanted::CascadeFile(_))));
        let hash = wanted("ab".repeat(32).into());
        assert!(matches!(hash, Ok(Wanted::Hash(_))));
    }
}
