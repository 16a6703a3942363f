//! The tracker's protocol by hand: a client, and stand-in trackers. Bytes as PROTOCOL §2 writes them.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use super::standin::{Accepts, Asked, Conn, StandIn};

/// Bytes of a request.
pub const REQUEST_LEN: usize = 54;

/// A request.
pub fn request(command: u32, hash: &[u8; 32], peer: SocketAddrV4) -> Vec<u8> {
    let mut bytes = b"CASC\0\0\0\x01".to_vec();
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&38u32.to_be_bytes());
    bytes.extend_from_slice(hash);
    bytes.extend_from_slice(&peer.ip().octets());
    bytes.extend_from_slice(&peer.port().to_be_bytes());
    bytes
}

/// Asks a tracker, and reads to the end of the connection: status and body.
pub fn ask(tracker: SocketAddr, request: &[u8]) -> io::Result<(u8, Vec<u8>)> {
    let mut stream = TcpStream::connect(tracker)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    if bytes.len() < 5 || bytes[1..5] != (bytes.len() as u32 - 5).to_be_bytes() {
        return Err(io::Error::other(format!("no response: {bytes:02x?}")));
    }
    Ok((bytes[0], bytes.split_off(5)))
}

/// The peers that a tracker names for a hash.
pub fn list(tracker: SocketAddr, hash: &[u8; 32]) -> Vec<SocketAddrV4> {
    let nobody = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let (status, body) = ask(tracker, &request(1, hash, nobody)).expect("the tracker answers");
    match status {
        0 => body.as_chunks::<12>().0.iter().map(address).collect(),
        _ => panic!("refused: {}", String::from_utf8_lossy(&body)),
    }
}

fn address(record: &[u8; 12]) -> SocketAddrV4 {
    let ip = Ipv4Addr::new(record[0], record[1], record[2], record[3]);
    SocketAddrV4::new(ip, u16::from_be_bytes([record[4], record[5]]))
}

/// The records of these peers.
pub fn records(peers: &[SocketAddr]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for peer in peers {
        let SocketAddr::V4(peer) = peer else {
            panic!("a record holds an IPv4 address, not {peer}");
        };
        bytes.extend_from_slice(&peer.ip().octets());
        bytes.extend_from_slice(&peer.port().to_be_bytes());
        bytes.extend_from_slice(&[0x6a, 0, 0, 0, 0, 0]);
    }
    bytes
}

/// A response.
pub fn response(status: u8, body: &[u8]) -> Vec<u8> {
    announced(status, body.len() as u32, body)
}

/// A response that announces a length of its own.
pub fn announced(status: u8, length: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![status];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A tracker that reads a request and then does as it likes.
pub fn start(
    habit: impl Fn(&mut Conn, &Asked) -> io::Result<()> + Send + Sync + 'static,
) -> StandIn {
    StandIn::start(Accepts::Together, move |conn| {
        let Some(bytes) = conn.receive(REQUEST_LEN)? else {
            return Ok(());
        };
        if bytes[..8] != *b"CASC\0\0\0\x01" || bytes[12..16] != *b"\0\0\0\x26" {
            conn.fault(format!("not a right request: {bytes:02x?}"));
        }
        let asked = conn.note(bytes);
        habit(conn, &asked)
    })
}

/// A tracker that always gives the same answer.
pub fn always(answer: Vec<u8>) -> StandIn {
    start(move |conn, _| conn.send(&answer))
}

impl Asked {
    /// The command of a request to a tracker.
    pub fn command(&self) -> u32 {
        u32::from_be_bytes([self.bytes[8], self.bytes[9], self.bytes[10], self.bytes[11]])
    }

    /// The peer of a request to a tracker.
    pub fn peer(&self) -> SocketAddrV4 {
        let port = u16::from_be_bytes([self.bytes[52], self.bytes[53]]);
        let ip = <[u8; 4]>::try_from(&self.bytes[48..52]).expect("four bytes");
        SocketAddrV4::new(ip.into(), port)
    }
}

/// An address on which nobody listens: it was free a moment ago.
pub fn nobody_there() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a listener has an address")
}

/// An address at which nobody listens, and which nobody else is given while the socket lives; a server may listen there.
pub fn reserved() -> (std::os::fd::OwnedFd, SocketAddr) {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket,
        sockopt::ReuseAddr,
    };
    use std::os::fd::AsRawFd;
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
    setsockopt(&socket, ReuseAddr, &true).expect("an option");
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a free port");
    let address: SockaddrIn = getsockname(socket.as_raw_fd()).expect("it is bound");
    (socket, std::net::SocketAddrV4::from(address).into())
}
