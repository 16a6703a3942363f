//! Under which address others reach this host.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// An address of nobody's (RFC 5737). Nothing is sent there.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 1), 9);

/// The IPv4 address under which others most likely reach this host: that of its way to the world, else that of an
/// interface, and loopback only where there is nothing else. (A tracker's records are IPv4.)
pub fn own_address() -> Ipv4Addr {
    outgoing()
        .or_else(|| best(interfaces()))
        .unwrap_or(Ipv4Addr::LOCALHOST)
}

/// The other IPv4 addresses under which others may reach this host.
pub fn other_addresses(than: Ipv4Addr) -> Vec<Ipv4Addr> {
    others(interfaces(), than)
}

fn others(addresses: Vec<IpAddr>, than: Ipv4Addr) -> Vec<Ipv4Addr> {
    let other = |address| match address {
        IpAddr::V4(ip) if is_reachable(ip) && !ip.is_link_local() && ip != than => Some(ip),
        _ => None,
    };
    let mut others: Vec<Ipv4Addr> = addresses.into_iter().filter_map(other).collect();
    others.dedup();
    others
}

/// Whether an address is this host's own.
pub fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || interfaces().into_iter().any(|own| own == address)
}

/// The local address of a connection to elsewhere, as the routes have it.
fn outgoing() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // On a datagram socket this only chooses an address.
    socket.connect(ELSEWHERE).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) if is_reachable(ip) => Some(ip),
        _ => None,
    }
}

/// The addresses of the interfaces that are up.
fn interfaces() -> Vec<IpAddr> {
    let Ok(found) = getifaddrs() else {
        return Vec::new();
    };
    found
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect()
}

/// The first IPv4 address that others can reach, one for this link only where there is no other.
fn best(addresses: Vec<IpAddr>) -> Option<Ipv4Addr> {
    let mut reachable: Vec<Ipv4Addr> = addresses
        .into_iter()
        .filter_map(|address| match address {
            IpAddr::V4(ip) if is_reachable(ip) => Some(ip),
            _ => None,
        })
        .collect();
    reachable.sort_by_key(|ip| ip.is_link_local());
    reachable.first().copied()
}

fn is_reachable(ip: Ipv4Addr) -> bool {
    !ip.is_loopback() && !ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_reach_is_preferred_and_loopback_is_none_of_it() {
        let all = ["127.0.0.1", "::1", "169.254.1.1", "10.0.0.1", "192.0.2.7"];
        let all = || all.iter().map(|text| text.parse().expect("an address"));
        assert_eq!(best(all().collect()), Some([10, 0, 0, 1].into()));
        assert_eq!(best(all().take(3).collect()), Some([169, 254, 1, 1].into()));
        assert_eq!(best(all().take(2).collect()), None);
        let own = [10, 0, 0, 1].into();
        assert_eq!(
            others(all().collect(), own),
            ["192.0.2.7".parse::<Ipv4Addr>().expect("one")]
        );
    }

    #[test]
    fn loopback_is_named_only_where_there_is_nothing_else() {
        let others = best(interfaces()).is_some();
        assert_eq!(own_address().is_loopback(), !others);
        assert!(is_own(own_address().into()));
    }
}
