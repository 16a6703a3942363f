//! Whom a connection comes from, as far as limits are concerned.

use std::net::IpAddr;

/// Who connects: the address of a TCP connection, IPv4 as it is, IPv6 by its first 64 bits, all of which usually belong
/// to one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(pub u64);

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
