//! Stand-in peers, each with a habit that PROTOCOL §4 tells of.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::sample::Sample;
use super::standin::{Accepts, Asked, Conn, StandIn};

/// Bytes of a request.
pub const REQUEST_LEN: usize = 64;

/// What a stand-in peer does with a connection.
pub type Habit = fn(&mut Conn, &Sample) -> io::Result<()>;

/// Starts a peer with this habit, which serves any number of connections at once.
pub fn start(sample: &Sample, habit: Habit) -> StandIn {
    start_with(Accepts::Together, sample, habit)
}

/// Starts a peer with this habit that is not a plain function, or takes connections in its own way.
pub fn start_with(
    accepts: Accepts,
    sample: &Sample,
    habit: impl Fn(&mut Conn, &Sample) -> io::Result<()> + Send + Sync + 'static,
) -> StandIn {
    let sample = Arc::new(sample.clone());
    StandIn::start(accepts, move |conn| habit(conn, &sample))
}

impl Asked {
    /// The block that a request to a peer names.
    pub fn block(&self) -> u64 {
        let mut number = [0; 8];
        number.copy_from_slice(&self.bytes[24..32]);
        u64::from_be_bytes(number)
    }

    /// Whether a request to a peer uses an extension.
    pub fn is_extended(&self) -> bool {
        &self.bytes[8..12] == b"CSX1"
    }

    /// Whether it asks for the map.
    pub fn wants_map(&self) -> bool {
        self.is_extended() && self.bytes[15] & 1 == 1
    }
}

impl Conn {
    /// The next request, checked and noted; nothing at the end of input.
    pub fn request(&mut self, sample: &Sample) -> io::Result<Option<Asked>> {
        let Some(bytes) = self.receive(REQUEST_LEN)? else {
            return Ok(None);
        };
        Ok(Some(self.check(bytes, sample)))
    }

    /// Notes a request; what is wrong with it is a fault.
    pub fn check(&self, bytes: Vec<u8>, sample: &Sample) -> Asked {
        let asked = self.note(bytes);
        let reserved = &asked.bytes[8..24];
        let allowed: [&[u8; 16]; 3] = [
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"CSX1\0\0\0\x01\0\0\0\0\0\0\0\0",
            b"CSX1\0\0\0\x02\0\0\0\0\0\0\0\0",
        ];
        let right = &asked.bytes[..8] == b"CASCADE1"
            && allowed.iter().any(|bytes| &bytes[..] == reserved)
            && asked.bytes[32..] == sample.hash()
            && (asked.block() as usize) < sample.blocks();
        if !right {
            self.fault(format!("not a right request: {:02x?}", asked.bytes));
        }
        asked
    }

    /// Answers one request after the other, each with its block, in one write.
    fn serve_on(&mut self, sample: &Sample) -> io::Result<()> {
        while let Some(asked) = self.request(sample)? {
            self.send(&block(sample, &asked))?;
        }
        Ok(())
    }
}

/// A response.
pub fn response(status: u8, body: &[u8]) -> Vec<u8> {
    announced(status, body.len() as u64, body)
}

/// A response that announces a length of its own.
pub fn announced(status: u8, length: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![status];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The right response to a request.
pub fn block(sample: &Sample, asked: &Asked) -> Vec<u8> {
    match sample.block(asked.block()) {
        Some(block) => response(0, block),
        None => response(3, b"no such block\n"),
    }
}

/// The response for a block that is not there.
pub fn not_present() -> Vec<u8> {
    response(2, b"not yet\n")
}

// What is honest.

pub fn keeps_the_connection_open(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    conn.serve_on(sample)
}

pub fn closes_after_each_block(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    if let Some(asked) = conn.request(sample)? {
        conn.send(&block(sample, &asked))?;
    }
    Ok(())
}

/// Long enough for a client to have asked ahead; what waits unread is then destroyed by the reset, and with it
/// responses on their way.
pub fn closes_after_five_blocks(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    for _ in 0..5 {
        let Some(asked) = conn.request(sample)? else {
            break;
        };
        conn.send(&block(sample, &asked))?;
    }
    Ok(())
}

pub fn reads_with_a_single_recv_of_64(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    loop {
        let bytes = conn.recv(REQUEST_LEN)?;
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.len() < REQUEST_LEN {
            conn.fault(format!("a request came in parts: {} bytes", bytes.len()));
            return conn.send(&response(4, b"bad request\n"));
        }
        let asked = conn.check(bytes, sample);
        conn.send(&block(sample, &asked))?;
    }
}

/// More than one request at once is to it a request that is too long.
pub fn refuses_two_requests_in_one_recv(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    loop {
        let bytes = conn.recv(4096)?;
        match bytes.len() {
            0 => return Ok(()),
            REQUEST_LEN => {
                let asked = conn.check(bytes, sample);
                conn.send(&block(sample, &asked))?;
            }
            _ => return conn.send(&response(4, b"bad request\n")),
        }
    }
}

/// Of what arrives at once it answers the first request, and forgets the others.
pub fn answers_only_the_first_of_a_recv(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    loop {
        let mut bytes = conn.recv(4096)?;
        if bytes.len() < REQUEST_LEN {
            return Ok(());
        }
        bytes.truncate(REQUEST_LEN);
        let asked = conn.check(bytes, sample);
        conn.send(&block(sample, &asked))?;
    }
}

pub fn sends_byte_by_byte(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    while let Some(asked) = conn.request(sample)? {
        for byte in block(sample, &asked) {
            conn.send(&[byte])?;
        }
    }
    Ok(())
}

pub fn sends_header_and_body_in_segments(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    while let Some(asked) = conn.request(sample)? {
        let bytes = block(sample, &asked);
        let middle = bytes.len() / 2;
        for part in [
            &bytes[..3],
            &bytes[3..9],
            &bytes[9..middle],
            &bytes[middle..],
        ] {
            conn.send(part)?;
            conn.pause(Duration::from_millis(5));
        }
    }
    Ok(())
}

/// Where a client asks ahead before it has seen two responses on the connection, this is a fault: a server that
/// closes would have destroyed the response.
pub fn resets_where_requests_wait(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    let mut answered = 0;
    while let Some(asked) = conn.request(sample)? {
        conn.pause(Duration::from_millis(3));
        let waiting = conn.unread()?;
        if waiting > 0 && answered < 2 {
            conn.fault(format!("asked ahead after {answered} responses"));
        }
        conn.send(&block(sample, &asked))?;
        answered += 1;
        if waiting > 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// Two blocks, then a message that nobody asked for, and the close.
pub fn answers_end_of_file_with_status_4(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    for _ in 0..2 {
        match conn.request(sample)? {
            Some(asked) => conn.send(&block(sample, &asked))?,
            None => break,
        }
    }
    conn.send(&response(4, b"end of file\n"))
}

/// Takes a request with `CSX1` for no request, and says so.
pub fn answers_the_extension_with_status_4(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    while let Some(asked) = conn.request(sample)? {
        if asked.is_extended() {
            return conn.send(&response(4, b"reserved bytes are not zero\n"));
        }
        conn.send(&block(sample, &asked))?;
    }
    Ok(())
}

/// Takes a request with `CSX1` for no request, and closes.
pub fn closes_at_the_extension(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    while let Some(asked) = conn.request(sample)? {
        if asked.is_extended() {
            return Ok(());
        }
        conn.send(&block(sample, &asked))?;
    }
    Ok(())
}

/// Knows the extension: its map says that all is there.
pub fn has_all_and_knows_the_map(conn: &mut Conn, sample: &Sample) -> io::Result<()> {
    while let Some(asked) = conn.request(sample)? {
        let answer = if asked.wants_map() {
            response(5, b"")
        } else {
            block(sample, &asked)
        };
        conn.send(&answer)?;
    }
    Ok(())
}

/// Knows the extension, and has only the blocks for which `has` is true.
pub fn has_some_and_knows_the_map(
    has: fn(u64) -> bool,
) -> impl Fn(&mut Conn, &Sample) -> io::Result<()> + Send + Sync + 'static {
    move |conn, sample| {
        while let Some(asked) = conn.request(sample)? {
            let answer = if asked.wants_map() {
                let mut map = vec![0u8; sample.blocks().div_ceil(8)];
                for block in (0..sample.blocks()).filter(|block| has(*block as u64)) {
                    map[block / 8] |= 0x80 >> (block % 8);
                }
                response(5, &map)
            } else if has(asked.block()) {
                block(sample, &asked)
            } else {
                not_present()
            };
            conn.send(&answer)?;
        }
        Ok(())
    }
}

/// Honest and slow: a block every so often, on each connection.
pub fn takes_its_time(
    pause: Duration,
) -> impl Fn(&mut Conn, &Sample) -> io::Result<()> + Send + Sync + 'static {
    move |conn, sample| {
        while let Some(asked) = conn.request(sample)? {
            conn.pause(pause);
            conn.send(&block(sample, &asked))?;
        }
        Ok(())
    }
}

/// Honest up to a point: after so many blocks in all it is silent, and keeps every connection open.
pub fn stalls_after(
    blocks: usize,
) -> impl Fn(&mut Conn, &Sample) -> io::Result<()> + Send + Sync + 'static {
    let given = std::sync::atomic::AtomicUsize::new(0);
    move |conn, sample| {
        while let Some(asked) = conn.request(sample)? {
            if given.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= blocks {
                return conn.hang();
            }
            conn.send(&block(sample, &asked))?;
        }
        Ok(())
    }
}
