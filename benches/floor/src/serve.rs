//! A server: a fork for each connection, and sendfile(2).

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use anyhow::Context;
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, send};
use nix::sys::wait::wait;
use nix::unistd::{ForkResult, fork};

use crate::format::{Cascade, HEADER, REQUEST};

/// Serves so many connections, then ends. The address is printed.
pub fn serve(data: &str, cascade: &str, connections: usize) -> anyhow::Result<()> {
    let (data, cascade) = (File::open(data)?, Cascade::read(cascade)?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for _ in 0..connections {
        let (stream, _) = listener.accept()?;
        in_child(|| converse(stream, &data, &cascade))?;
    }
    (0..connections).try_for_each(|_| wait().map(drop))?;
    Ok(())
}

/// Runs something in a process of its own.
pub fn in_child(body: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    // SAFETY: this process has one thread, so that its child may go on as it would have.
    #[allow(unsafe_code)]
    let forked = unsafe { fork() }.context("cannot fork")?;
    if let ForkResult::Child = forked {
        let result = body();
        if let Err(error) = &result {
            eprintln!("floor: {error:#}");
        }
        std::process::exit(result.is_err().into());
    }
    Ok(())
}

fn converse(mut stream: TcpStream, data: &File, cascade: &Cascade) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; REQUEST];
    loop {
        match stream.read_exact(&mut request) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let block = u64::from_be_bytes(request[24..32].try_into()?);
        anyhow::ensure!(block < cascade.blocks(), "there is no block {block}");
        let mut left = cascade.block_length(block);
        let mut header = [0; HEADER];
        header[1..].copy_from_slice(&left.to_be_bytes());
        let more = MsgFlags::from_bits_retain(0x8000); // MSG_MORE
        let sent = send(stream.as_raw_fd(), &header, more)?;
        anyhow::ensure!(sent == HEADER, "the client takes nothing");
        let mut offset = i64::try_from(block * cascade.block)?;
        while left > 0 {
            left -= sendfile64(&stream, data, Some(&mut offset), usize::try_from(left)?)? as u64;
        }
    }
}
