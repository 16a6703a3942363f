//! The unconfined end: it receives the contents, and has the file written.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use super::{BEGIN, DATA, END, Number, PACKET, answer, receive};
use crate::confine::keeper::ALONE;

/// The helper's main loop; returns its exit status.
pub(super) fn serve(socket: &OwnedFd, write: impl Fn(&mut dyn Read) -> io::Result<()>) -> u8 {
    let mut incoming = Incoming {
        socket,
        packet: [0; PACKET],
        unread: 0..0,
        at: At::Nothing,
    };
    loop {
        match incoming.at {
            At::Nothing | At::End => {
                if incoming.next().is_err() {
                    return ALONE;
                }
            }
            At::Within(number) => {
                let written = write(&mut incoming);
                // What is left of a file that cannot be written.
                while written.is_err() && incoming.at == At::Within(number) {
                    if incoming.next().is_err() {
                        return ALONE;
                    }
                }
                if answer(socket, number, written).is_err() {
                    return ALONE;
                }
            }
        }
    }
}

/// Contents as they arrive.
struct Incoming<'a> {
    socket: &'a OwnedFd,
    packet: [u8; PACKET],
    /// The unread part of the packet.
    unread: std::ops::Range<usize>,
    at: At,
}

/// What the last packet was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Nothing yet, or something malformed.
    Nothing,
    /// A beginning, or what followed it.
    Within(Number),
    /// An end.
    End,
}

impl Incoming<'_> {
    /// Takes the next packet.
    fn next(&mut self) -> io::Result<()> {
        let packet = receive(self.socket, &mut self.packet)?;
        let (kind, rest) = packet.split_first().ok_or(io::ErrorKind::InvalidData)?;
        let (kind, number) = (*kind, Number::try_from(rest));
        self.unread = 0..0;
        match (kind, number, self.at) {
            (BEGIN, Ok(number), _) => self.at = At::Within(number),
            (DATA, _, At::Within(_)) => self.unread = 1..1 + rest.len(),
            (END, _, At::Within(_)) => self.at = At::End,
            // Of a file that was given up, or of nothing.
            _ => self.at = At::Nothing,
        }
        Ok(())
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let within = self.at;
        while self.unread.is_empty() {
            if self.at == At::End {
                return Ok(0);
            }
            self.next()?;
            if ![within, At::End].contains(&self.at) {
                return Err(io::Error::other("whoever wrote it has died"));
            }
        }
        let n = to.len().min(self.unread.len());
        to[..n].copy_from_slice(&self.packet[self.unread.start..][..n]);
        self.unread.start += n;
        Ok(n)
    }
}
