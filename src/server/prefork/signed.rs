//! A member's report, with the client on whose behalf it is made: the parent did not accept that connection.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::sys::record::Record;

/// A report, and on whose behalf it is made.
pub struct Signed<R> {
    /// The client.
    pub remote: SocketAddr,
    /// What the member reports of it.
    pub report: R,
}

impl<R: Record> Record for Signed<R> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let ip = match self.remote.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        bytes.extend_from_slice(&ip.octets());
        bytes.extend_from_slice(&self.remote.port().to_ne_bytes());
        self.report.encode(bytes);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (ip, bytes) = bytes.split_first_chunk::<16>()?;
        let (port, report) = bytes.split_first_chunk()?;
        let ip = IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical();
        Some(Self {
            remote: SocketAddr::new(ip, u16::from_ne_bytes(*port)),
            report: R::decode(report)?,
        })
    }
}
