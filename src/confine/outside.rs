//! An unconfined helper, forked in advance, that writes a file on behalf of a process that may not.
//!
//! A socket that keeps message boundaries connects them. The contents are sent in packets between [`BEGIN`] and
//! [`END`], and the result comes back. The sender may die midway: the next `BEGIN` reveals that, and the file stays as
//! it was. The helper may die as well: its successor announces itself, and everything is sent again.

mod writer;

use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use super::keeper::{ALONE, Helper};
use crate::sys::poll::hung_up;

/// The longest packet.
const PACKET: usize = 8192;
/// Kinds of packets, in their first byte. `BEGIN` is followed by the number of the request.
const BEGIN: u8 = b'b';
const DATA: u8 = b'd';
const END: u8 = b'e';

/// Identifies a request. Two processes may share the socket and a copy of the same memory, but not the pid.
type Number = [u8; 8];

/// The number under which the helper announces that it has started.
const BEGUN: Number = [0; 8];

/// How often a write is attempted: the helper may be killed, and replaced.
const ATTEMPTS: usize = 3;

/// The confined end.
#[derive(Debug)]
pub struct Outside {
    socket: OwnedFd,
}

impl Outside {
    /// Makes the confined end, and the helper, which is yet to be started. It first runs `begin`, to drop what it does
    /// not need; `write` then creates the file called `name` from what it reads.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new<'a>(
        name: &str,
        begin: impl Fn() -> anyhow::Result<()> + Send + 'a,
        write: impl Fn(&mut dyn Read) -> io::Result<()> + Send + 'a,
    ) -> io::Result<(Self, Helper<'a>)> {
        let (socket, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        let helper = Helper {
            task: format!("writes {name}"),
            socket: theirs,
            keep: Vec::new(),
            life: Box::new(move |socket| {
                let begun = begin().map_err(|error| io::Error::other(format!("{error:#}")));
                let ready = begun.is_ok();
                match answer(socket, BEGUN, begun) {
                    Ok(()) if !ready => 1,
                    Ok(()) => writer::serve(socket, &write),
                    Err(_) => ALONE,
                }
            }),
        };
        Ok((Self { socket }, helper))
    }

    /// Waits until the helper has started.
    ///
    /// # Errors
    /// Where `begin` failed.
    pub fn wait_until_begun(&self) -> io::Result<()> {
        let mut packet = [0; PACKET];
        decode(receive(&self.socket, &mut packet)?)?.1
    }

    /// Whether the helper has ended and will not be restarted.
    pub fn is_gone(&self) -> bool {
        hung_up(self.socket.as_fd()).unwrap_or(true)
    }

    /// Has the file written with the output of `contents`, and waits for the result. Only one process at a time may
    /// ask. If the helper dies meanwhile, its successor writes the file from the start.
    ///
    /// # Errors
    /// Where the file cannot be written, or the process is gone.
    pub fn write(&self, contents: impl Fn(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            self.forget_answers()?;
            if let Some(written) = self.write_once(&contents)? {
                return written;
            }
        }
        Err(io::Error::other(
            "the process that writes it ends each time",
        ))
    }

    /// The helper's result; `None` where another helper has started meanwhile.
    fn write_once(
        &self,
        contents: impl Fn(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<Option<io::Result<()>>> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanoseconds = since.unwrap_or_default().as_nanos() as u32;
        let number = (u64::from(std::process::id()) << 32 | u64::from(nanoseconds)).to_ne_bytes();
        self.send(BEGIN, &number)?;
        let mut packets = BufWriter::with_capacity(PACKET - 1, Packets(self));
        contents(&mut packets)?;
        packets.flush()?;
        self.send(END, &[])?;
        self.wait(number)
    }

    fn send(&self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let packet = [&[kind][..], bytes].concat();
        send(self.socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    /// Discards results meant for processes that died before they arrived, and announcements of helpers.
    fn forget_answers(&self) -> io::Result<()> {
        let (socket, mut packet) = (self.socket.as_raw_fd(), [0; PACKET]);
        loop {
            match recv(socket, &mut packet, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(gone()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the result of this request, or for another helper. Results of requests by processes that died are
    /// skipped.
    fn wait(&self, number: Number) -> io::Result<Option<io::Result<()>>> {
        let mut packet = [0; PACKET];
        loop {
            match decode(receive(&self.socket, &mut packet)?)? {
                (of, written) if of == number => return Ok(Some(written)),
                (BEGUN, Ok(())) => return Ok(None),
                // The next one cannot begin.
                (BEGUN, error) => return Ok(Some(error)),
                _ => {}
            }
        }
    }
}

impl AsFd for Outside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends contents in packets.
struct Packets<'a>(&'a Outside);

impl Write for Packets<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(PACKET - 1)];
        self.0.send(DATA, part).map(|()| part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Receives a packet, waiting for it.
fn receive<'a>(socket: &OwnedFd, packet: &'a mut [u8; PACKET]) -> io::Result<&'a [u8]> {
    loop {
        match recv(socket.as_raw_fd(), packet, MsgFlags::empty()) {
            Ok(0) => return Err(gone()),
            Ok(n) => return Ok(&packet[..n]),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends a result: the number; an errno, 0 for success or -1; and the message of an error without errno.
fn answer(to: &OwnedFd, number: Number, result: io::Result<()>) -> io::Result<()> {
    let mut packet = number.to_vec();
    match result {
        Ok(()) => packet.extend(0i32.to_ne_bytes()),
        Err(error) => {
            packet.extend(error.raw_os_error().unwrap_or(-1).to_ne_bytes());
            packet.extend(error.to_string().as_bytes());
        }
    }
    packet.truncate(PACKET);
    send(to.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

fn decode(answer: &[u8]) -> io::Result<(Number, io::Result<()>)> {
    let parts = answer
        .split_first_chunk()
        .and_then(|(number, rest)| Some((number, rest.split_first_chunk()?)));
    let (number, (errno, text)) = parts.ok_or(io::ErrorKind::InvalidData)?;
    let result = match i32::from_ne_bytes(*errno) {
        0 => Ok(()),
        -1 => Err(io::Error::other(String::from_utf8_lossy(text))),
        errno => Err(io::Error::from_raw_os_error(errno)),
    };
    Ok((*number, result))
}

fn gone() -> io::Error {
    io::Error::other("the process that would do it has ended")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    /// A thread in the place of the process, and what it makes of what is written. It dies, and another one begins,
    /// of "deadly" the first time.
    fn outside(test: impl FnOnce(&Outside, &dyn Fn() -> Option<String>)) {
        let (sender, written) = channel();
        let deaths = AtomicUsize::new(0);
        let write = |contents: &mut dyn Read| {
            let mut text = String::new();
            let read = contents.read_to_string(&mut text);
            let dies = text == "deadly" && deaths.fetch_add(1, Ordering::SeqCst) == 0;
            assert!(!dies, "on demand");
            let _ = sender.send(read.is_ok().then_some(text.clone()));
            read?;
            match text.as_str() {
                "full" => Err(Errno::ENOSPC.into()),
                _ => Ok(()),
            }
        };
        let (outside, helper) = Outside::new("x", || Ok(()), write).expect("a pair");
        let Helper { socket, life, .. } = helper;
        std::thread::scope(|scope| {
            scope.spawn(move || while catch_unwind(AssertUnwindSafe(|| life(&socket))).is_err() {});
            outside.wait_until_begun().expect("it begins");
            test(&outside, &|| written.recv().expect("it answers"));
            drop(outside);
        });
    }

    #[test]
    fn what_is_written_arrives_whole_however_long_it_is() {
        outside(|outside, written| {
            for text in ["", "short", &"long".repeat(3 * PACKET)] {
                outside
                    .write(|to| to.write_all(text.as_bytes()))
                    .expect("a write");
                assert_eq!(written().as_deref(), Some(text));
            }
        });
    }

    #[test]
    fn an_error_is_handed_back_as_it_is() {
        outside(|outside, _| {
            let error = outside.write(|to| to.write_all(b"full"));
            assert_eq!(
                error.expect_err("no room").raw_os_error(),
                Some(libc::ENOSPC)
            );
            outside.write(|to| to.write_all(b"x")).expect("it lives on");
        });
    }

    #[test]
    fn half_of_a_file_whose_writer_died_is_none_and_the_next_is_whole() {
        outside(|outside, written| {
            outside.send(BEGIN, &[1; 8]).expect("a send");
            outside.send(DATA, b"half").expect("a send");
            outside.write(|to| to.write_all(b"whole")).expect("a write");
            assert_eq!(written(), None);
            assert_eq!(written().as_deref(), Some("whole"));
            // One that died before it heard of the end.
            outside.send(BEGIN, &[2; 8]).expect("a send");
            outside.send(END, &[]).expect("a send");
            outside.write(|to| to.write_all(b"next")).expect("a write");
            assert_eq!(written().as_deref(), Some(""));
            assert_eq!(written().as_deref(), Some("next"));
        });
    }

    #[test]
    fn what_a_dying_writer_did_not_write_the_next_one_writes() {
        outside(|outside, written| {
            outside
                .write(|to| to.write_all(b"deadly"))
                .expect("a write");
            assert_eq!(written().as_deref(), Some("deadly"));
            assert!(!outside.is_gone());
        });
    }
}
