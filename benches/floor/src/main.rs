//! What a transfer costs at least: the same work as `cascade` does, by hand, with nothing around it. And clients that
//! put load on a server. `benches/transfer/bench.py` runs it.
//!
//!     floor serve DATA CASCADE CONNECTIONS     a fork for each connection, sendfile(2)
//!     floor get ADDRESS CASCADE OUTPUT         two workers, and the hash of the whole file behind them
//!     floor blocks ADDRESS CASCADE OUTPUT      the same without the hash of the whole file
//!     floor each ADDRESS CASCADE OUTPUT COUNT  a connection for each of so many blocks
//!     floor load ADDRESS CASCADE CLIENTS MS    clients that read different blocks; prints the bytes of each
//!     floor hash THREADS BYTES                 SHA-256 of so many bytes in all; prints the nanoseconds

mod format;
mod get;
mod load;
mod serve;

use std::time::Instant;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", data, cascade, connections] => {
            serve::serve(data, cascade, number(connections)? as usize)
        }
        ["get", address, cascade, output] => get::get(address.parse()?, cascade, output, true),
        ["blocks", address, cascade, output] => get::get(address.parse()?, cascade, output, false),
        ["each", address, cascade, output, count] => {
            get::each(address.parse()?, cascade, output, number(count)?)
        }
        ["load", address, cascade, clients, milliseconds] => load::load(
            address.parse()?,
            cascade,
            number(clients)? as usize,
            number(milliseconds)?,
        ),
        ["hash", threads, bytes] => hash(number(threads)?, number(bytes)?),
        _ => bail!("usage: floor serve|get|blocks|each|load|hash …"),
    }
}

fn number(text: &str) -> anyhow::Result<u64> {
    text.parse()
        .with_context(|| format!("cannot read {text} as a number"))
}

/// Hashes bytes that lie in the core's own cache.
fn hash(threads: u64, bytes: u64) -> anyhow::Result<()> {
    const PIECE: usize = 256 << 10;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let piece = vec![7; PIECE];
                let mut hasher = Sha256::new();
                (0..bytes / threads / PIECE as u64).for_each(|_| hasher.update(&piece));
                std::hint::black_box(hasher.finalize());
            });
        }
    });
    println!("{}", begin.elapsed().as_nanos());
    Ok(())
}
