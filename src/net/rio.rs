//! Robust I/O after the textbook's RIO: short counts and interruptions are dealt with here, once.
//!
//! Bytes are bytes: nothing is text, and a zero is as good as any other.

use std::io::{self, Read, Write};

/// How much a [`Reader`] asks for at once.
const BUFFER: usize = 8192;

/// Fills `bytes` as far as the input reaches; answers how much that was, which is less only at the end of input.
///
/// # Errors
/// As read(2), other than for an interruption. What was read before is in `bytes`, but how much is not known.
pub fn readn(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match read(from, &mut bytes[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Writes all of `bytes`.
///
/// # Errors
/// As write(2), other than for an interruption; `WriteZero` where nothing is taken any more.
pub fn writen(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        match to.write(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => left = &left[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One read(2), as often as it is interrupted.
fn read(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Reads lines, and whatever else, through a buffer of its own.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    buffer: Vec<u8>,
    /// What of the buffer was taken already.
    taken: usize,
}

impl<R: Read> Reader<R> {
    /// Nothing is read yet.
    pub fn new(from: R) -> Self {
        Self {
            from,
            buffer: Vec::new(),
            taken: 0,
        }
    }

    /// Appends to `line` up to and with the next newline, but makes it no longer than `most`. Answers whether it is
    /// whole: it ends with a newline, or has its full length; otherwise the input has ended.
    ///
    /// # Errors
    /// As read(2), other than for an interruption. What was read stays in `line`, so that a call after `WouldBlock`
    /// goes on where this one stopped.
    pub fn readline(&mut self, line: &mut Vec<u8>, most: usize) -> io::Result<bool> {
        while line.len() < most {
            if self.arrived().is_empty() && self.fill()? == 0 {
                return Ok(false);
            }
            let arrived = self.arrived();
            let arrived = &arrived[..arrived.len().min(most - line.len())];
            let newline = arrived.iter().position(|byte| *byte == b'\n');
            let n = newline.map_or(arrived.len(), |index| index + 1);
            line.extend_from_slice(&arrived[..n]);
            self.taken += n;
            if newline.is_some() {
                break;
            }
        }
        Ok(true)
    }

    /// As the function [`readn`], with what is in the buffer first.
    ///
    /// # Errors
    /// As there.
    pub fn readn(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let arrived = self.arrived();
        let n = arrived.len().min(bytes.len());
        bytes[..n].copy_from_slice(&arrived[..n]);
        self.taken += n;
        Ok(n + readn(&mut self.from, &mut bytes[n..])?)
    }

    /// What was read and not taken.
    fn arrived(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// Reads once into the buffer, all of which was taken; answers how much.
    fn fill(&mut self) -> io::Result<usize> {
        self.taken = 0;
        self.buffer.resize(BUFFER, 0);
        let read = read(&mut self.from, &mut self.buffer);
        self.buffer.truncate(*read.as_ref().unwrap_or(&0));
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input and output that come and go in parts of this many bytes, with an interruption before each.
    struct Bits<T> {
        inner: T,
        size: usize,
        interrupted: bool,
    }

    fn bits<T>(inner: T, size: usize) -> Bits<T> {
        Bits {
            inner,
            size,
            interrupted: false,
        }
    }

    impl<T> Bits<T> {
        fn interrupt(&mut self) -> io::Result<()> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        }
    }

    impl<T: Read> Read for Bits<T> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.interrupt()?;
            let n = bytes.len().min(self.size);
            self.inner.read(&mut bytes[..n])
        }
    }

    impl<T: Write> Write for Bits<T> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.interrupt()?;
            self.inner.write(&bytes[..bytes.len().min(self.size)])
        }

        fn flush(&mut self) -> io::Result<()> {
            self.inner.flush()
        }
    }

    const SIZES: [usize; 5] = [1, 2, 3, BUFFER - 1, 1 << 20];

    fn lines(input: &[u8], size: usize, most: usize) -> Vec<Vec<u8>> {
        let mut reader = Reader::new(bits(input, size));
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            let whole = reader.readline(&mut line, most).expect("no error");
            if !line.is_empty() {
                lines.push(line);
            }
            if !whole {
                return lines;
            }
        }
    }

    #[test]
    fn readn_fills_what_it_was_given_and_stops_at_the_end() {
        for size in SIZES {
            let mut bytes = [0; 4];
            assert_eq!(
                readn(&mut bits(&b"abcdef"[..], size), &mut bytes).ok(),
                Some(4)
            );
            assert_eq!(&bytes, b"abcd");
            assert_eq!(readn(&mut bits(&b"xy"[..], size), &mut bytes).ok(), Some(2));
            assert_eq!(&bytes, b"xycd");
            assert_eq!(readn(&mut bits(&b""[..], size), &mut bytes).ok(), Some(0));
        }
    }

    #[test]
    fn writen_writes_all() {
        let bytes: Vec<u8> = (0..=255).cycle().take(3 * BUFFER + 1).collect();
        for size in SIZES {
            let mut to = bits(Vec::new(), size);
            writen(&mut to, &bytes).expect("no error");
            assert!(to.inner == bytes, "in parts of {size}");
        }
        let error = writen(&mut [0u8; 2].as_mut_slice(), b"abc").expect_err("it is full");
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let input = b"\0one\n\n\xff\xfe\nlast without newline";
        let expected: [&[u8]; 4] = [b"\0one\n", b"\n", b"\xff\xfe\n", b"last without newline"];
        for size in SIZES {
            assert_eq!(
                lines(input, size, usize::MAX),
                expected,
                "in parts of {size}"
            );
        }
    }

    #[test]
    fn a_line_longer_than_allowed_comes_in_parts() {
        for size in SIZES {
            let expected: [&[u8]; 4] = [b"abc", b"def", b"\n", b"g\n"];
            assert_eq!(lines(b"abcdef\ng\n", size, 3), expected);
        }
        let long = vec![b'x'; 5 * BUFFER];
        for size in SIZES {
            assert!(lines(&long, size, usize::MAX) == [long.clone()]);
        }
    }

    #[test]
    fn a_reader_gives_first_what_it_has_read_ahead() {
        for size in SIZES {
            let mut reader = Reader::new(bits(&b"line\nabcdef"[..], size));
            let (mut line, mut bytes) = (Vec::new(), [0; 4]);
            assert_eq!(reader.readline(&mut line, usize::MAX).ok(), Some(true));
            assert_eq!(line, b"line\n");
            assert_eq!(reader.readn(&mut bytes).ok(), Some(4));
            assert_eq!(&bytes, b"abcd");
            assert_eq!(reader.readn(&mut bytes).ok(), Some(2));
        }
    }

    #[test]
    fn a_line_that_is_not_there_yet_is_completed_by_the_next_call() {
        /// Blocks before each byte.
        struct Slow<'a>(&'a [u8], bool);
        impl Read for Slow<'_> {
            fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.0.read(&mut bytes[..1])
            }
        }
        let mut reader = Reader::new(Slow(b"slow\n", false));
        let mut line = Vec::new();
        let mut waits = 0;
        while let Err(error) = reader.readline(&mut line, usize::MAX) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            waits += 1;
        }
        assert_eq!((line.as_slice(), waits), (&b"slow\n"[..], 5));
    }
}
