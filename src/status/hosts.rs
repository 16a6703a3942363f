//! The hosts for which the pages answer: names and addresses at which they can be reached on purpose.
//!
//! A page elsewhere may have a browser ask here under a name of its own, which it lets resolve to this address (DNS
//! rebinding), and so read what only those nearby are to see. The browser says in `Host` which name that was.

use std::net::{IpAddr, SocketAddr};

/// The hosts for which to answer.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    /// Answer for any: only programs of this host ask.
    all: bool,
    /// Where the listeners are.
    addresses: Vec<IpAddr>,
    /// Names, in lower case.
    names: Vec<String>,
}

impl Hosts {
    /// Every host, for a socket that no browser reaches.
    pub fn all() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// Listeners at these addresses, which are reached under these names and that of this machine.
    pub fn new<'a>(
        addresses: impl IntoIterator<Item = SocketAddr>,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let machine = nix::unistd::gethostname().unwrap_or_default();
        let machine = machine.to_string_lossy();
        let names = names.into_iter().map(normal).chain([normal(&machine)]);
        Self {
            all: false,
            addresses: addresses
                .into_iter()
                .map(|address| address.ip().to_canonical())
                .collect(),
            names: names.filter(|name| !name.is_empty()).collect(),
        }
    }

    /// Whether to answer for the value of a `Host` field: a name or an address, and perhaps a port.
    pub fn allow(&self, host: &str) -> bool {
        self.all || self.allow_name(without_port(host))
    }

    fn allow_name(&self, host: &str) -> bool {
        let name = normal(host);
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        match literal.parse::<IpAddr>() {
            // No name leads here: whoever asks for any address of this machine has typed it.
            Ok(ip) => self
                .addresses
                .iter()
                .any(|at| at.is_unspecified() || *at == ip.to_canonical()),
            Err(_) => {
                let is_local = |at: &IpAddr| at.is_loopback() || at.is_unspecified();
                name == "localhost" && self.addresses.iter().any(is_local)
                    || self.names.contains(&name)
            }
        }
    }
}

/// Names are the same in any case, and with a dot at the end.
fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // Of an address in brackets the last colon may lie inside.
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => {
            if name.contains(':') && !name.ends_with(']') {
                host
            } else {
                name
            }
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(addresses: &[&str], names: &[&str]) -> Hosts {
        let addresses = addresses.iter().map(|at| at.parse().expect("an address"));
        Hosts::new(addresses, names.iter().copied())
    }

    #[test]
    fn pages_at_one_address_answer_for_it_and_for_what_it_is_called() {
        let local = hosts(&["127.0.0.1:8080", "[::1]:8080"], &["Status.Example"]);
        for host in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.0.0.1:1",
            "localhost",
            "LOCALHOST:8080",
            "[::1]",
            "[::1]:8080",
            "status.example",
            "status.example.:80",
        ] {
            assert!(local.allow(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "192.0.2.1",
            "status.example.evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::2]",
            "::",
            ":",
        ] {
            assert!(!local.allow(host), "{host}");
        }
        let outside = hosts(&["192.0.2.1:80"], &[]);
        assert!(outside.allow("192.0.2.1") && outside.allow("[::ffff:192.0.2.1]:80"));
        assert!(!outside.allow("localhost") && !outside.allow("127.0.0.1"));
    }

    #[test]
    fn pages_at_every_address_answer_for_any_of_them_and_for_the_name_of_the_machine() {
        let every = hosts(&["0.0.0.0:80"], &[]);
        let machine = nix::unistd::gethostname().expect("it has a name");
        for host in [
            "192.0.2.1",
            "127.0.0.1:80",
            "localhost",
            &machine.to_string_lossy(),
        ] {
            assert!(every.allow(host), "{host}");
        }
        assert!(!every.allow("evil.example"));
        assert!(Hosts::all().allow("evil.example"));
    }
}
