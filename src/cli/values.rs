//! Values that are typed: sizes, rates, times, and what a file on the network is named by.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

use super::TRACKER_PORT;
use crate::hash::CascadeHash;
use crate::net::address::{AddressError, HostPort, ListenAddress};
use crate::net::link::{Link, LinkError, SCHEME, pasted};

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

/// What begins like a link is one, or a mistake. Quotes and blanks around it, as mail programs leave them, are not its.
pub(crate) fn wanted(text: OsString) -> Result<Wanted, LinkError> {
    match text.to_str().and_then(pasted) {
        Some(link) => link.parse().map(Wanted::Link),
        None => Ok(match target(text) {
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

/// A tracker: where no port is named, it is the usual one.
pub(crate) fn tracker(text: &str) -> Result<HostPort, String> {
    if text.starts_with(SCHEME) {
        return Err("that is a link: name it without -t".into());
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!(
            "a tracker is named HOST or HOST:PORT, without {scheme}://"
        ));
    }
    let with_port = |error| match error {
        AddressError::NoPort => format!("{text}:{TRACKER_PORT}").parse(),
        other => Err(other),
    };
    let tracker = text.parse().or_else(with_port);
    tracker.map_err(|error: AddressError| error.to_string())
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        0 => Err("a block has at least one byte".into()),
        size => Ok(size),
    }
}

/// A number of bytes, with a unit or without: exact, for a number that is not what was meant is worse than none.
fn bytes(text: &str) -> Result<u64, String> {
    const WRONG: &str = "a number of bytes is needed, or one with a unit: 65536, 64KiB, 1.5MiB";
    let is_number = |character: char| character.is_ascii_digit() || character == '.';
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c| !is_number(c)).unwrap_or(text.len()));
    let unit: u128 = match &*unit.trim_start().to_ascii_lowercase() {
        "" | "b" => 1,
        unit => {
            let (prefix, base) = match unit.trim_end_matches('b') {
                prefix if prefix.ends_with('i') => (prefix.trim_end_matches('i'), 1024u128),
                prefix => (prefix, 1000),
            };
            let power = ["k", "m", "g", "t", "p", "e"]
                .iter()
                .position(|known| *known == prefix)
                .ok_or(WRONG)?;
            base.pow(power as u32 + 1)
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_too_long = whole.len() + fraction.len() > 20;
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() {
        return Err(WRONG.into());
    }
    let large = || format!("{text} is more than 18446744073709551615 bytes");
    if is_too_long {
        return Err(large());
    }
    // Twenty digits, and a unit of at most 2^60: no product overflows 128 bits.
    let product = digits.parse::<u128>().map_err(|_| WRONG)? * unit;
    let scale = 10u128.pow(fraction.len() as u32);
    if !product.is_multiple_of(scale) {
        return Err(format!("{text} is no whole number of bytes"));
    }
    u64::try_from(product / scale).map_err(|_| large())
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
    match bytes(text)? {
        0 => Err("a rate is at least one byte per second".into()),
        rate => Ok(rate),
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
        assert_eq!(size("1.5 kB"), Ok(1500));
        assert_eq!(size("2k"), Ok(2000));
        assert_eq!(size("0.5Ki"), Ok(512));
        assert_eq!(size("15EiB"), Ok(15 << 60));
        assert_eq!(size("18446744073709551615"), Ok(u64::MAX));
        for text in [
            "0", "", "-1", "1XiB", ".", "1.2.3KiB", "KiB", "1iB", "1 2", "0x10", "1e3",
        ] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_size_that_is_not_exactly_what_was_typed_is_none() {
        for text in [
            "16EiB",
            "17EiB",
            "99999999999TiB",
            "18446744073709551616",
            "99999999999999999999999",
        ] {
            assert!(size(text).unwrap_err().contains("is more than"), "{text}");
        }
        assert_eq!(
            size("0.1KiB"),
            Err("0.1KiB is no whole number of bytes".into())
        );
        assert_eq!(rate("0.3"), Err("0.3 is no whole number of bytes".into()));
    }

    #[test]
    fn a_tracker_without_a_port_has_the_usual_one() {
        for (text, tracker_is) in [
            ("localhost", "localhost:8888"),
            ("192.0.2.1", "192.0.2.1:8888"),
            ("[::1]", "[::1]:8888"),
            ("host:99", "host:99"),
        ] {
            assert_eq!(
                tracker(text).map(|host| host.to_string()),
                Ok(tracker_is.into())
            );
        }
        for text in [
            "",
            "::1",
            "http://host:8888/",
            "cascade://h:1/x",
            "host:",
            "a b",
        ] {
            assert!(tracker(text).is_err(), "{text}");
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
