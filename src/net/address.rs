//! Addresses as they are typed: `HOST:PORT`, `[ADDR:]PORT`, `ADDR[:PORT]`. No I/O: names stay names here.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

/// Why a text is no address.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// There is no colon between host and port.
    #[error("a port is missing: HOST:PORT is needed, such as localhost:8889")]
    NoPort,
    /// The host is empty, or has characters that no host name has.
    #[error("'{0}' is no host name or address")]
    Host(String),
    /// The port is a number, but not one of a port.
    #[error("port {0} is out of range (0 to 65535)")]
    PortRange(String),
    /// The port is neither a number nor a service name.
    #[error("'{0}' is no port or service name")]
    Port(String),
    /// An IPv6 address without brackets.
    #[error("an IPv6 address needs brackets: [ADDR]:PORT")]
    Brackets,
}

/// A port as it was typed: a number, or the name of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// A number.
    Number(u16),
    /// A name of the service database (services(5)).
    Service(String),
}

impl FromStr for Port {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text
                .parse()
                .map(Self::Number)
                .map_err(|_| AddressError::PortRange(text.into()));
        }
        let named = text.bytes().any(|byte| byte.is_ascii_alphabetic())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte));
        if named {
            Ok(Self::Service(text.into()))
        } else {
            Err(AddressError::Port(text.into()))
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Service(name) => f.write_str(name),
        }
    }
}

/// `HOST:PORT`: whom to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: Port,
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = split(text)?;
        Ok(Self {
            host: host.ok_or(AddressError::NoPort)?,
            port: port.ok_or(AddressError::NoPort)?,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// `[ADDR:]PORT`: where to listen; without an address, on every IPv4 and IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// A name or an address, without brackets.
    pub host: Option<String>,
    /// The port; 0 lets the system choose one.
    pub port: Port,
}

impl ListenAddress {
    /// This port on every address.
    pub fn any(port: u16) -> Self {
        Self {
            host: None,
            port: Port::Number(port),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if !text.contains(':') {
            return Ok(Self {
                host: None,
                port: text.parse()?,
            });
        }
        if let Some(port) = text.strip_prefix(':').filter(|port| !port.contains(':')) {
            return Ok(Self {
                host: None,
                port: port.parse()?,
            });
        }
        let HostPort { host, port } = text.parse()?;
        Ok(Self {
            host: Some(host),
            port,
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => HostPort {
                host: host.clone(),
                port: self.port.clone(),
            }
            .fmt(f),
            None => self.port.fmt(f),
        }
    }
}

/// `ADDR[:PORT]`: the IPv4 address (tracker records have no other) under which others reach this peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertised {
    /// The address.
    pub address: Ipv4Addr,
    /// The port, where it is another than the one that is listened on.
    pub port: Option<u16>,
}

impl FromStr for Advertised {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (address, port) = match text.split_once(':') {
            Some((address, port)) => (address, Some(port)),
            None => (text, None),
        };
        let port = match port.map(str::parse).transpose()? {
            None => None,
            Some(Port::Number(number)) if number != 0 => Some(number),
            Some(other) => return Err(AddressError::Port(other.to_string())),
        };
        let address: Ipv4Addr = address
            .parse()
            .map_err(|_| AddressError::Host(address.into()))?;
        if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
            return Err(AddressError::Host(address.to_string()));
        }
        Ok(Self { address, port })
    }
}

/// Splits `HOST:PORT`, `[HOST]:PORT`, and checks the characters of both.
fn split(text: &str) -> Result<(Option<String>, Option<Port>), AddressError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(AddressError::Brackets)?;
        (host, rest.strip_prefix(':').ok_or(AddressError::NoPort)?)
    } else {
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        if host.contains(':') {
            return Err(AddressError::Brackets);
        }
        (host, port)
    };
    let plausible = !host.is_empty()
        && host.len() <= 255
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:%".contains(&byte));
    if !plausible {
        return Err(AddressError::Host(host.into()));
    }
    Ok((Some(host.into()), Some(port.parse()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_read_in_every_usual_form() {
        for (text, host, port) in [
            ("localhost:8888", "localhost", Port::Number(8888)),
            ("192.0.2.1:http", "192.0.2.1", Port::Service("http".into())),
            ("[::1]:80", "::1", Port::Number(80)),
        ] {
            let read: HostPort = text.parse().expect(text);
            assert_eq!((read.host.as_str(), &read.port), (host, &port));
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn wrong_addresses_are_refused_with_their_reason() {
        let parse = |text: &str| text.parse::<HostPort>().unwrap_err();
        assert_eq!(parse("localhost"), AddressError::NoPort);
        assert_eq!(
            parse("localhost:65536"),
            AddressError::PortRange("65536".into())
        );
        assert_eq!(
            parse("localhost:99999999999999999999"),
            AddressError::PortRange("99999999999999999999".into())
        );
        assert_eq!(parse("localhost:"), AddressError::Port(String::new()));
        assert_eq!(parse("::1:80"), AddressError::Brackets);
        assert_eq!(parse("a b:80"), AddressError::Host("a b".into()));
        assert_eq!(parse(":80"), AddressError::Host(String::new()));
    }

    #[test]
    fn a_listen_address_may_be_a_bare_port() {
        for text in ["8888", ":8888"] {
            assert_eq!(text.parse(), Ok(ListenAddress::any(8888)));
        }
        let listen: ListenAddress = "[::1]:0".parse().expect("an address");
        assert_eq!(
            listen,
            ListenAddress {
                host: Some("::1".into()),
                port: Port::Number(0)
            }
        );
        assert!("::1".parse::<ListenAddress>().is_err());
    }

    #[test]
    fn an_advertised_address_is_ipv4_and_reachable_by_form() {
        assert_eq!(
            "192.0.2.1".parse(),
            Ok(Advertised {
                address: [192, 0, 2, 1].into(),
                port: None
            })
        );
        assert_eq!(
            "192.0.2.1:99".parse(),
            Ok(Advertised {
                address: [192, 0, 2, 1].into(),
                port: Some(99)
            })
        );
        for text in [
            "::1",
            "0.0.0.0",
            "224.0.0.1",
            "name",
            "192.0.2.1:0",
            "192.0.2.1:http",
        ] {
            assert!(text.parse::<Advertised>().is_err(), "{text}");
        }
    }
}
