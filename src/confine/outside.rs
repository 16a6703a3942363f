//! A process outside of the confinement: forked before, it writes a file for a process that may write none.
//!
//! Both are connected by a socket that keeps packets apart. What the file is to hold comes in packets between a
//! [`BEGIN`] and an [`END`]; what became of it goes back. Whoever sends may die in the middle: the next one's `BEGIN`
//! says that it did, and the file stays as it was. Whoever writes may die as well: the next one says that it begins, and
//! all is sent again.

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
/// Kinds of packets, their first byte. With the first goes the number of what is to be written.
const BEGIN: u8 = b'b';
const DATA: u8 = b'd';
const END: u8 = b'e';

/// The number of what is written. Two processes may have one socket and the same memory, but not the same pid.
type Number = [u8; 8];

/// What the process says when it begins goes by this number.
const BEGUN: Number = [0; 8];

/// So often it is tried to have a file written: its writer may be killed, and another begins.
const ATTEMPTS: usize = 3;

/// The confined end.
#[derive(Debug)]
pub struct Outside {
    socket: OwnedFd,
}

impl Outside {
    /// The confined end, and the process, which is yet to be started: `begin` gives up what it does not need, and
    /// `write` makes the file, which goes by this name, of what it reads.
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

    /// Waits until the process has begun.
    ///
    /// # Errors
    /// Where it cannot begin.
    pub fn wait_until_begun(&self) -> io::Result<()> {
        let mut packet = [0; PACKET];
        decode(receive(&self.socket, &mut packet)?)?.1
    }

    /// Whether the process has ended, and will not be started again.
    pub fn is_gone(&self) -> bool {
        hung_up(self.socket.as_fd()).unwrap_or(true)
    }

    /// Has the file written with what `contents` writes, and waits for it. One at a time may ask for that. A writer
    /// that dies meanwhile is none the worse for the file: the next one writes it from the start.
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

    /// What the writer says; nothing where another one has begun meanwhile.
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

    /// Takes what was said to those who died before they heard it, and of writers that have begun since.
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

    /// Waits for what became of this, or for another writer. An answer to one who died before it came is not ours.
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

/// Contents on their way out.
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

/// Waits for a packet.
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

/// An answer is the number, an errno or 0 or -1, and what there is to say of an error that has no errno.
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
