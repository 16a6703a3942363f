//! Clients that write what they receive: the floor of `cascade get`, and the one that knows no pipelining.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;

use anyhow::ensure;
use nix::sys::wait::{WaitStatus, wait};
use sha2::{Digest, Sha256};

use crate::format::{Cascade, read_header};
use crate::serve::in_child;

const WORKERS: u64 = 2;
/// What is received, and read, at once.
const PIECE: usize = 256 << 10;

/// Downloads everything with two worker processes that take turns with the blocks, while a third process hashes the
/// whole file behind the prefix that is there, or, without `whole`, only looks on.
pub fn get(peer: SocketAddr, cascade: &str, output: &str, whole: bool) -> anyhow::Result<()> {
    let cascade = Cascade::read(cascade)?;
    let output = create(output, cascade.length)?;
    let (done, report) = pipe()?;
    for worker in 0..WORKERS {
        in_child(|| work(peer, &cascade, &output, worker, &report))?;
    }
    // In the parent the closure is dropped, and with it the pipe.
    in_child({
        let (cascade, output) = (&cascade, &output);
        move || {
            drop(report);
            follow(cascade, output, &done, whole)
        }
    })?;
    for _ in 0..=WORKERS {
        let status = wait()?;
        ensure!(
            matches!(status, WaitStatus::Exited(_, 0)),
            "a process failed: {status:?}"
        );
    }
    Ok(())
}

fn create(output: &str, length: u64) -> anyhow::Result<File> {
    let output = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(output)?;
    output.set_len(length)?;
    Ok(output)
}

/// Receives every other block, hashes it and writes it, and says so.
fn work(
    peer: SocketAddr,
    cascade: &Cascade,
    output: &File,
    first: u64,
    mut report: &std::io::PipeWriter,
) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(peer)?;
    stream.set_nodelay(true)?;
    let mine = || (first..cascade.blocks()).step_by(WORKERS as usize);
    let mut asked = mine();
    for block in asked.by_ref().take(cascade.ahead() as usize) {
        stream.write_all(&cascade.request(block))?;
    }
    let mut buffer = vec![0; usize::try_from(cascade.block)?];
    for block in mine() {
        receive(&mut stream, cascade, block, &mut buffer, output)?;
        report.write_all(&block.to_ne_bytes())?;
        if let Some(next) = asked.next() {
            stream.write_all(&cascade.request(next))?;
        }
    }
    Ok(())
}

/// Receives one block, which must be right, and writes it.
fn receive(
    stream: &mut TcpStream,
    cascade: &Cascade,
    block: u64,
    buffer: &mut [u8],
    output: &File,
) -> anyhow::Result<()> {
    let length = cascade.block_length(block);
    read_header(stream, length)?;
    let buffer = &mut buffer[..length as usize];
    let mut hasher = Sha256::new();
    let mut filled = 0;
    while filled < buffer.len() {
        let end = buffer.len().min(filled + PIECE);
        let n = stream.read(&mut buffer[filled..end])?;
        ensure!(n > 0, "the peer has gone");
        hasher.update(&buffer[filled..filled + n]);
        filled += n;
    }
    ensure!(
        hasher.finalize()[..] == cascade.hashes[block as usize],
        "block {block} is wrong"
    );
    output.write_all_at(buffer, block * cascade.block)?;
    Ok(())
}

/// Hashes the whole file as it grows from its beginning.
fn follow(
    cascade: &Cascade,
    output: &File,
    mut done: &std::io::PipeReader,
    whole: bool,
) -> anyhow::Result<()> {
    let mut present = vec![false; cascade.hashes.len()];
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; PIECE]);
    for block in 0..cascade.blocks() {
        while !present[block as usize] {
            let mut number = [0; 8];
            done.read_exact(&mut number)?;
            present[u64::from_ne_bytes(number) as usize] = true;
        }
        if !whole {
            continue;
        }
        let (mut at, end) = (
            block * cascade.block,
            block * cascade.block + cascade.block_length(block),
        );
        while at < end {
            let room = (end - at).min(PIECE as u64) as usize;
            output.read_exact_at(&mut buffer[..room], at)?;
            hasher.update(&buffer[..room]);
            at += room as u64;
        }
    }
    ensure!(
        !whole || hasher.finalize()[..] == cascade.whole,
        "the file as a whole is wrong"
    );
    Ok(())
}

/// Fetches so many blocks, each on a connection of its own.
pub fn each(peer: SocketAddr, cascade: &str, output: &str, count: u64) -> anyhow::Result<()> {
    let cascade = Cascade::read(cascade)?;
    let output = create(output, cascade.length)?;
    let mut buffer = vec![0; usize::try_from(cascade.block)?];
    for block in 0..count.min(cascade.blocks()) {
        let mut stream = TcpStream::connect(peer)?;
        stream.set_nodelay(true)?;
        stream.write_all(&cascade.request(block))?;
        receive(&mut stream, &cascade, block, &mut buffer, &output)?;
    }
    Ok(())
}
