//! Many clients at once, in one process that throws away what it receives.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};

use crate::format::{Cascade, HEADER};

/// What is taken from a connection before the next has its turn.
const TURN: usize = 256 << 10;

struct Client {
    stream: TcpStream,
    /// The block that comes in, and the one that will be asked for next.
    coming: u64,
    next: u64,
    /// Bytes of the response that are missing.
    left: u64,
    received: u64,
}

/// So many clients read blocks for so long, each from another place in the file on. Prints what each received.
pub fn load(
    peer: SocketAddr,
    cascade: &str,
    clients: usize,
    milliseconds: u64,
) -> anyhow::Result<()> {
    let cascade = Cascade::read(cascade)?;
    let mut all = Vec::new();
    for index in 0..clients as u64 {
        let first = index * cascade.blocks() / clients as u64;
        let stream = TcpStream::connect(peer)?;
        stream.set_nodelay(true)?;
        all.push(Client {
            stream,
            coming: first,
            next: first,
            left: HEADER as u64 + cascade.block_length(first),
            received: 0,
        });
    }
    for client in &mut all {
        (0..cascade.ahead()).try_for_each(|_| client.ask(&cascade))?;
    }
    let end = Instant::now() + Duration::from_millis(milliseconds);
    // What is thrown away needs no room: MSG_TRUNC copies nothing.
    let mut nothing = vec![0; TURN];
    while Instant::now() < end {
        let mut polled: Vec<PollFd<'_>> = all
            .iter()
            .map(|client| PollFd::new(client.stream.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut polled, PollTimeout::from(100u8))?;
        let ready: Vec<bool> = polled.iter().map(|fd| fd.any() == Some(true)).collect();
        for (client, _) in all.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            client.receive(&cascade, &mut nothing)?;
        }
    }
    for client in &all {
        println!("{}", client.received);
    }
    Ok(())
}

impl Client {
    fn ask(&mut self, cascade: &Cascade) -> anyhow::Result<()> {
        (&self.stream).write_all(&cascade.request(self.next))?;
        self.next = (self.next + 1) % cascade.blocks();
        Ok(())
    }

    fn receive(&mut self, cascade: &Cascade, nothing: &mut [u8]) -> anyhow::Result<()> {
        let flags = MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
        let n = match recv(self.stream.as_raw_fd(), nothing, flags) {
            Err(Errno::EAGAIN) => return Ok(()),
            n => n?,
        };
        ensure!(n > 0, "the server has closed a connection");
        let mut n = n as u64;
        self.received += n;
        while n >= self.left {
            n -= self.left;
            self.coming = (self.coming + 1) % cascade.blocks();
            self.left = HEADER as u64 + cascade.block_length(self.coming);
            self.ask(cascade)?;
        }
        self.left -= n;
        Ok(())
    }
}
