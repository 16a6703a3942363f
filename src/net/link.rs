//! Links: `cascade://HOST:PORT/HASH/NAME` names a tracker, a file, and the name under which to save it. PROTOCOL §5.
//!
//! A link comes from a stranger, by mail or from a page. What is not exactly of this form is refused, and so is a name
//! that could lead anywhere but into the directory in which it is saved.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use thiserror::Error;

use super::address::{AddressError, HostPort, Port};
use crate::hash::{CascadeHash, NotAHash};

/// What every link begins with.
pub const SCHEME: &str = "cascade://";
/// What a link of the web begins with.
const WEB: [&str; 2] = ["http://", "https://"];
/// The longest name of a file, in bytes (`NAME_MAX`).
const LONGEST_NAME: usize = 255;
/// What is encoded of a name: all but the unreserved characters of RFC 3986, so that a link can be pasted into a shell.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// What else may stand in a name as it is (`pchar` of RFC 3986).
const PLAIN: &[u8] = b"-._~!$&'()*+,;=:@";

/// Why a text is no link.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LinkError {
    /// It begins otherwise.
    #[error("a link begins with cascade://")]
    Scheme,
    /// It is one of the web.
    #[error("this is no web browser: a link of cascade begins with cascade://")]
    Web,
    /// It is one of the web's, but for its beginning one of ours.
    #[error("a link begins with cascade://; did you mean {0}?")]
    Meant(Box<Link>),
    /// A part is missing.
    #[error("it is cut off: a link has the form cascade://HOST:PORT/HASH/NAME")]
    Parts,
    /// There is white space in it.
    #[error("there is a blank in it: a link has none, and a name in it has %20 instead")]
    Blank,
    /// The tracker is none.
    #[error("the link's tracker: {0}")]
    Tracker(#[from] AddressError),
    /// The tracker is none, though something like it would do elsewhere.
    #[error(
        "the link's tracker: HOST:PORT is needed, with a port from 1 to 65535, and brackets around IPv6 only"
    )]
    TrackerForm,
    /// The hash is none.
    #[error("the link's hash: {0}")]
    Hash(#[from] NotAHash),
    /// Characters that must be encoded are not, or an escape is not `%` and two digits.
    #[error("the link's name is not percent-encoded")]
    Encoding,
    /// The decoded bytes are not text.
    #[error("the link's name is not UTF-8")]
    Text,
    /// The name is one that nobody means well with.
    #[error("the link's name: {0}")]
    Name(#[from] NameError),
}

/// Why a text cannot be the name under which a stranger's file is saved.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// There is none.
    #[error("it is empty")]
    Empty,
    /// It has so many bytes.
    #[error("it has {0} bytes, at most 255 are possible")]
    TooLong(usize),
    /// It leads elsewhere.
    #[error("it has a '/' in it")]
    Separator,
    /// It could command a terminal, or end too early.
    #[error("it has a control character in it")]
    Control,
    /// It is the directory itself, the one above, or hidden.
    #[error("it begins with a dot")]
    Dot,
}

/// The name of a file: one component of a path, visible, and nothing but text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(String);

impl FileName {
    /// The text; it is safe to join to a directory.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > LONGEST_NAME {
            return Err(NameError::TooLong(name.len()));
        }
        if name.contains('/') {
            return Err(NameError::Separator);
        }
        if name.contains(char::is_control) {
            return Err(NameError::Control);
        }
        if name.starts_with('.') {
            return Err(NameError::Dot);
        }
        Ok(Self(name.into()))
    }
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Who knows the peers.
    pub tracker: HostPort,
    /// The file.
    pub hash: CascadeHash,
    /// What to call it.
    pub name: FileName,
}

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| otherwise_begun(text))?;
        let (tracker, rest) = rest.split_once('/').ok_or(LinkError::Parts)?;
        let (hash, name) = rest.split_once('/').ok_or(LinkError::Parts)?;
        if text.contains(char::is_whitespace) {
            return Err(LinkError::Blank);
        }
        Ok(Self {
            tracker: tracker_of(tracker)?,
            hash: hash.parse()?,
            name: decode(name)?.parse()?,
        })
    }
}

/// What is wrong with a link that begins otherwise.
fn otherwise_begun(text: &str) -> LinkError {
    let Some(rest) = WEB.iter().find_map(|web| text.strip_prefix(web)) else {
        return LinkError::Scheme;
    };
    match format!("{SCHEME}{rest}").parse() {
        Ok(meant) => LinkError::Meant(Box::new(meant)),
        Err(_) => LinkError::Web,
    }
}

/// What somebody typed who meant a link, as it was before it went through mail programs and clipboards: without the
/// quotes and angle brackets around it, and in one line. Nothing for what is no link, however it is read.
///
/// ```
/// use cascade::net::link::pasted;
/// assert_eq!(pasted(" <cascade://host:80/ab\n  cd/x> ").as_deref(), Some("cascade://host:80/abcd/x"));
/// assert_eq!(pasted("\u{201c}Cascade://host:80/ab/x\u{201d}").as_deref(), Some("cascade://host:80/ab/x"));
/// assert_eq!(pasted("x.cascade"), None);
/// ```
pub fn pasted(text: &str) -> Option<String> {
    let around = |c: char| {
        c.is_whitespace()
            || "<>\"'`\u{ab}\u{bb}".contains(c)
            || ('\u{2018}'..='\u{201f}').contains(&c)
    };
    let text = text.trim_matches(around);
    let (scheme, rest) = text.split_once(':')?;
    let scheme = scheme.to_ascii_lowercase();
    let is_link = scheme == "cascade" && rest.starts_with('/');
    let is_web = WEB.iter().any(|web| *web == format!("{scheme}://")) && rest.starts_with("//");
    if !is_link && !is_web {
        return None;
    }
    // A line of a mail begins with blanks, or with the marks of who cites it.
    let mut lines = rest
        .lines()
        .map(|line| line.trim_matches([' ', '\t', '>', '\r']));
    Some(format!("{scheme}:{}", lines.by_ref().collect::<String>()))
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = utf8_percent_encode(self.name.as_str(), ENCODED);
        write!(f, "{SCHEME}{}/{}/{name}", self.tracker, self.hash)
    }
}

/// Reads `HOST:PORT` in the one form that it has here: a number as the port, brackets around IPv6 and nothing else.
fn tracker_of(text: &str) -> Result<HostPort, LinkError> {
    let tracker: HostPort = text.parse()?;
    let is_ipv6 = tracker.host.parse::<Ipv6Addr>().is_ok();
    let host = is_ipv6 || !tracker.host.contains([':', '%']);
    let port = matches!(tracker.port, Port::Number(port) if port != 0);
    // Whatever was written in another way (a port with zeros in front) reads back differently.
    if host && port && tracker.to_string() == text {
        Ok(tracker)
    } else {
        Err(LinkError::TrackerForm)
    }
}

/// Decodes a name, once.
fn decode(text: &str) -> Result<String, LinkError> {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut digit = || bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit());
        let right = byte.is_ascii_alphanumeric()
            || PLAIN.contains(&byte)
            || byte == b'%' && digit() && digit();
        if !right {
            return Err(LinkError::Encoding);
        }
    }
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_| LinkError::Text)?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn named(name: &str) -> Result<Link, LinkError> {
        format!("cascade://192.0.2.1:8888/{HASH}/{name}").parse()
    }

    fn at(tracker: &str) -> Result<Link, LinkError> {
        format!("cascade://{tracker}/{HASH}/x").parse()
    }

    #[test]
    fn a_link_is_read_and_printed_as_the_protocol_says() {
        let text = format!("cascade://192.0.2.1:8888/{HASH}/disk%20image%C3%A9.img");
        let link: Link = text.parse().expect("a link");
        assert_eq!(link.tracker.to_string(), "192.0.2.1:8888");
        assert_eq!(link.hash.to_string(), HASH);
        assert_eq!(link.name.as_str(), "disk imageé.img");
        assert_eq!(link.to_string(), text);
    }

    #[test]
    fn ipv6_hosts_have_brackets_and_nothing_else_has() {
        let link = at("[2001:db8::1]:80").expect("a link");
        assert_eq!(link.tracker.host, "2001:db8::1");
        assert!(link.to_string().starts_with("cascade://[2001:db8::1]:80/"));
        assert!(at("tracker.example.org:1").is_ok());
        for tracker in [
            "2001:db8::1:80",
            "[192.0.2.1]:80",
            "[localhost]:80",
            "[fe80::1%eth0]:80",
            "[]:80",
            "a%41:80",
            "user@host:80",
            "host",
            ":80",
            "host:",
            "host:http",
            "host:0",
            "host:080",
            "host:+80",
            "host:65536",
            "",
        ] {
            assert!(at(tracker).is_err(), "{tracker}");
        }
    }

    #[test]
    fn hostile_names_are_refused_however_they_are_written() {
        for (name, error) in [
            ("", NameError::Empty),
            ("..", NameError::Dot),
            (".", NameError::Dot),
            ("%2e%2E", NameError::Dot),
            (".bashrc", NameError::Dot),
            ("a%2fb", NameError::Separator),
            ("%2Fetc%2Fpasswd", NameError::Separator),
            ("..%2f..%2fx", NameError::Separator),
            ("a%00b", NameError::Control),
            ("a%0a", NameError::Control),
            ("%1b%5b2J", NameError::Control),
            ("a%7f", NameError::Control),
            ("a%C2%9b2J", NameError::Control),
            (&"a".repeat(256), NameError::TooLong(256)),
        ] {
            assert_eq!(named(name), Err(LinkError::Name(error)), "{name}");
        }
        for name in [
            "a/b", "../x", "é", "a%", "a%4", "a%g0", "a?b", "a#b", "a\\b", "a\0",
        ] {
            assert_eq!(named(name), Err(LinkError::Encoding), "{name}");
        }
        assert_eq!(named("%ff"), Err(LinkError::Text));
        assert_eq!(named("a b"), Err(LinkError::Blank));
        assert!(named(&"a".repeat(255)).is_ok());
    }

    #[test]
    fn a_name_is_decoded_once() {
        let name = |text| named(text).expect("a link").name;
        assert_eq!(name("%252e%252e%252fx").as_str(), "%2e%2e%2fx");
        assert_eq!(name("a+b").as_str(), "a+b");
    }

    #[test]
    fn links_of_the_web_are_told_from_ours_that_were_taken_for_such() {
        let link = format!("://192.0.2.1:8888/{HASH}/x");
        let meant = Box::new(format!("cascade{link}").parse().expect("a link"));
        for (text, error) in [
            (format!("http{link}"), LinkError::Meant(meant)),
            ("https://example.org/x".into(), LinkError::Web),
        ] {
            let read = pasted(&text).expect("it is meant as a link");
            assert_eq!(read.parse::<Link>(), Err(error));
        }
        for text in ["", "x", "./cascade://x", "cascade:x", "ftp://x", ":", "a:b"] {
            assert_eq!(pasted(text), None, "{text}");
        }
    }

    #[test]
    fn what_lacks_a_part_is_no_link() {
        let short = &HASH[1..];
        for text in [
            String::new(),
            "cascade:".into(),
            format!("http://h:1/{HASH}/x"),
            format!("CASCADE://h:1/{HASH}/x"),
            format!(" cascade://h:1/{HASH}/x"),
            "cascade://h:1".into(),
            format!("cascade://h:1/{HASH}"),
            format!("cascade://h:1/{HASH}/"),
            format!("cascade://h:1/{short}/x"),
            format!("cascade://h:1//{HASH}/x"),
            format!("cascade://h:1/{HASH}/x/"),
        ] {
            assert!(text.parse::<Link>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_and_needs_no_quotes(
            hash: [u8; 32], port in 1u16.., name in "[^/.\\p{Cc}][^/\\p{Cc}]{0,60}", ip: [u8; 4],
        ) {
            let link = Link {
                tracker: HostPort { host: std::net::Ipv4Addr::from(ip).to_string(), port: Port::Number(port) },
                hash: CascadeHash(hash),
                name: name.parse().expect("a good name"),
            };
            let text = link.to_string();
            prop_assert_eq!(text.parse(), Ok(link));
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%:/".contains(&byte)));
        }

        #[test]
        fn whatever_is_accepted_stays_in_its_directory(name in "(%[0-9a-fA-F]{2}|[ -~]){0,8}") {
            if let Ok(link) = named(&name) {
                let path = std::path::Path::new("/a").join(link.name.as_str());
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("/a")));
                prop_assert_eq!(path.components().count(), 3);
                prop_assert!(!link.name.as_str().contains(char::is_control));
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = text.parse::<Link>();
            let _ = format!("cascade://h:1/{HASH}/{text}").parse::<Link>();
        }
    }
}
