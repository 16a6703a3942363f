//! The tracker's configuration file: JSON, in the form that is in use. PROTOCOL §2.
//!
//! | key | value |
//! |---|---|
//! | `port` | the port to listen on |
//! | `allowedhashes` | a list of cascade hashes, in hexadecimal digits |
//! | `good-ips` | a list of IPv4 addresses for which the operator vouches |
//! | `ban-private` | whether private addresses are refused |
//!
//! Every key may be missing, and keys that are not known here are ignored: other programs read the file too.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::hash::CascadeHash;

/// What the configuration file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The port to listen on.
    pub port: Option<u16>,
    /// Files to track.
    pub hashes: BTreeSet<CascadeHash>,
    /// Addresses of good peers.
    pub good_ips: BTreeSet<Ipv4Addr>,
    /// Whether private addresses are refused.
    pub ban_private: bool,
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not JSON.
    #[error("it is not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It is JSON, but not an object.
    #[error("it is not a JSON object")]
    NoObject,
    /// A value of another type than its key needs.
    #[error("'{key}' must be {wanted}")]
    Type {
        /// The key.
        key: &'static str,
        /// What its value must be.
        wanted: &'static str,
    },
    /// An entry of a list that is none of what the list is of.
    #[error("'{key}' has an entry '{entry}', which is not {wanted}")]
    Entry {
        /// The key of the list.
        key: &'static str,
        /// The entry, fit to be shown.
        entry: String,
        /// What it must be.
        wanted: &'static str,
    },
}

impl Config {
    /// Reads an open configuration file.
    ///
    /// # Errors
    /// Where it cannot be read, or makes no sense; the message names the key.
    pub fn read_open(mut file: File) -> Result<Self, ConfigError> {
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Self::parse(&text)
    }

    /// Reads a configuration from its text.
    ///
    /// # Errors
    /// Where it makes no sense; the message names the key.
    pub fn parse(text: &[u8]) -> Result<Self, ConfigError> {
        let Value::Object(object) = serde_json::from_slice(text)? else {
            return Err(ConfigError::NoObject);
        };
        Ok(Self {
            port: value(&object, "port", "a number from 0 to 65535")?,
            hashes: list(&object, "allowedhashes", "a hash of 64 hexadecimal digits")?,
            good_ips: list(&object, "good-ips", "an IPv4 address")?,
            ban_private: value(&object, "ban-private", "true or false")?.unwrap_or(false),
        })
    }
}

fn value<T: DeserializeOwned>(
    object: &Map<String, Value>,
    key: &'static str,
    wanted: &'static str,
) -> Result<Option<T>, ConfigError> {
    object
        .get(key)
        .map(|value| T::deserialize(value).map_err(|_| ConfigError::Type { key, wanted }))
        .transpose()
}

fn list<T: FromStr + Ord>(
    object: &Map<String, Value>,
    key: &'static str,
    wanted: &'static str,
) -> Result<BTreeSet<T>, ConfigError> {
    let entries: Option<Vec<String>> = value(object, key, "a list of texts")?;
    entries
        .unwrap_or_default()
        .iter()
        .map(|entry| {
            entry.parse().map_err(|_| ConfigError::Entry {
                key,
                entry: crate::text::escape(entry.as_bytes()),
                wanted,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_use_is_read_as_it_is() {
        let hash = "ab".repeat(32);
        let text = format!(
            r#"{{"port": 9000, "allowedhashes": ["{hash}", "{}"], "good-ips": ["192.0.2.1"],
               "ban-private": true, "logfile": {{"name": "x"}}}}"#,
            hash.to_uppercase()
        );
        assert_eq!(
            Config::parse(text.as_bytes()).expect("a configuration"),
            Config {
                port: Some(9000),
                hashes: [CascadeHash([0xab; 32])].into(),
                good_ips: [[192, 0, 2, 1].into()].into(),
                ban_private: true,
            }
        );
    }

    #[test]
    fn every_key_may_be_missing() {
        assert_eq!(
            Config::parse(b"{}").expect("a configuration"),
            Config::default()
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_key() {
        for (text, reason) in [
            ("", "it is not JSON"),
            ("{", "it is not JSON"),
            ("[]", "it is not a JSON object"),
            (
                r#"{"port": "80"}"#,
                "'port' must be a number from 0 to 65535",
            ),
            (r#"{"port": 65536}"#, "'port' must be"),
            (r#"{"port": -1}"#, "'port' must be"),
            (r#"{"port": null}"#, "'port' must be"),
            (
                r#"{"allowedhashes": "ab"}"#,
                "'allowedhashes' must be a list of texts",
            ),
            (
                r#"{"allowedhashes": ["ab\n"]}"#,
                "'allowedhashes' has an entry 'ab', which is not a hash",
            ),
            (r#"{"good-ips": [1]}"#, "'good-ips' must be a list of texts"),
            (
                r#"{"good-ips": ["::1"]}"#,
                "'good-ips' has an entry '::1', which is not an IPv4 address",
            ),
            (
                r#"{"ban-private": 1}"#,
                "'ban-private' must be true or false",
            ),
        ] {
            let error = Config::parse(text.as_bytes()).expect_err(text).to_string();
            assert!(error.starts_with(reason), "{text}: {error}");
        }
    }
}
