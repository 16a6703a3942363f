//! Stand-in clients of a peer: bytes as PROTOCOL §3 writes them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Long enough for whatever a server does, short enough to fail a test.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request for a block.
pub fn request(hash: &[u8; 32], block: u64) -> Vec<u8> {
    request_with(hash, block, [0; 16])
}

/// A request with these reserved bytes.
pub fn request_with(hash: &[u8; 32], block: u64, reserved: [u8; 16]) -> Vec<u8> {
    let mut bytes = b"CASCADE1".to_vec();
    bytes.extend_from_slice(&reserved);
    bytes.extend_from_slice(&block.to_be_bytes());
    bytes.extend_from_slice(hash);
    bytes
}

/// The reserved bytes that ask for an extension.
pub fn extension(flags: u32) -> [u8; 16] {
    let mut reserved = [0; 16];
    reserved[..4].copy_from_slice(b"CSX1");
    reserved[4..8].copy_from_slice(&flags.to_be_bytes());
    reserved
}

/// A connection to a peer, that gives up after a while.
pub fn connect(peer: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(peer).expect("the peer listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .and_then(|()| stream.set_nodelay(true))
        .expect("a new socket takes options");
    stream
}

/// Reads one response, however it arrives: status and body.
pub fn response(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 9];
    stream.read_exact(&mut header)?;
    let length = u64::from_be_bytes(header[1..].try_into().expect("eight bytes"));
    assert!(length < 1 << 30, "no peer announces {length} bytes");
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body)?;
    Ok((header[0], body))
}

/// Asks one thing on a connection of its own.
pub fn ask(peer: SocketAddr, request: &[u8]) -> io::Result<(u8, Vec<u8>)> {
    let mut stream = connect(peer);
    stream.write_all(request)?;
    response(&mut stream)
}

/// Checks that the server has closed: nothing more arrives.
#[track_caller]
pub fn assert_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    assert!(
        read.is_ok() && rest.is_empty(),
        "{read:?}, then {rest:02x?}"
    );
}
