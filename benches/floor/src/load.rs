//! Many clients at once, in a process for each core, that receive and do nothing with it.
//!
//! One process would not do: of many connections, the system sends in the name of whoever receives, so that a single
//! core would do the work of both sides while the server rests.

use std::fmt::Write as _;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::wait::{WaitStatus, wait};

use crate::format::{Cascade, HEADER};
use crate::serve::in_child;

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
    let processes = std::thread::available_parallelism()?.get().min(clients);
    for process in 0..processes {
        in_child(|| {
            let mine = (process..clients).step_by(processes);
            let firsts = mine.map(|index| index as u64 * cascade.blocks() / clients as u64);
            let all = firsts.map(|first| Client::connect(peer, &cascade, first));
            read(&cascade, all.collect::<Result<_, _>>()?, milliseconds)
        })?;
    }
    for _ in 0..processes {
        let status = wait()?;
        ensure!(
            matches!(status, WaitStatus::Exited(_, 0)),
            "a process failed: {status:?}"
        );
    }
    Ok(())
}

/// These clients read for so long.
fn read(cascade: &Cascade, mut all: Vec<Client>, milliseconds: u64) -> anyhow::Result<()> {
    for client in &mut all {
        (0..cascade.ahead()).try_for_each(|_| client.ask(cascade))?;
    }
    let end = Instant::now() + Duration::from_millis(milliseconds);
    let mut buffer = vec![0; TURN];
    while Instant::now() < end {
        let mut polled: Vec<PollFd<'_>> = all
            .iter()
            .map(|client| PollFd::new(client.stream.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut polled, PollTimeout::from(100u8))?;
        let ready: Vec<bool> = polled.iter().map(|fd| fd.any() == Some(true)).collect();
        for (client, _) in all.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            client.receive(cascade, &mut buffer)?;
        }
    }
    let mut text = String::new();
    for client in &all {
        writeln!(text, "{}", client.received)?;
    }
    // At once: the other process prints too.
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

impl Client {
    fn connect(peer: SocketAddr, cascade: &Cascade, first: u64) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(peer)?;
        stream.set_nodelay(true)?;
        // All the same: what the system chooses for each differs, and it is the server that is to be fair.
        setsockopt(&stream, sockopt::RcvBuf, &TURN)?;
        Ok(Self {
            stream,
            coming: first,
            next: first,
            left: HEADER as u64 + cascade.block_length(first),
            received: 0,
        })
    }

    fn ask(&mut self, cascade: &Cascade) -> anyhow::Result<()> {
        (&self.stream).write_all(&cascade.request(self.next))?;
        self.next = (self.next + 1) % cascade.blocks();
        Ok(())
    }

    fn receive(&mut self, cascade: &Cascade, buffer: &mut [u8]) -> anyhow::Result<()> {
        let n = match recv(self.stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
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
