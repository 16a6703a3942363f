//! Asking a server through its control socket.

use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use httparse::EMPTY_HEADER;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// The longest response that is accepted.
const MOST: u64 = 256 << 20;

/// The server's response, unparsed: JSON.
///
/// # Errors
/// Where the server does not respond in time, or sends something else.
pub fn ask(path: &Path, timeout: Duration) -> anyhow::Result<serde_json::Value> {
    let deadline = Instant::now() + timeout;
    let once =
        || -> anyhow::Result<Vec<u8>> { Ok(exchange(connect_to(path, timeout)?, deadline)?) };
    let bytes = match once() {
        // Whoever tells is started anew where there is more to tell.
        Err(error) if error.downcast_ref().is_some_and(is_close) => once(),
        answered => answered,
    };
    let bytes = bytes.map_err(|error| match error.downcast_ref().map(io::Error::kind) {
        Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            let seconds = humantime::format_duration(timeout);
            anyhow::anyhow!("there was no answer within {seconds}")
        }
        _ => error,
    })?;
    let body = body(&bytes)?;
    serde_json::from_slice(body).context("it answered something that is no status")
}

fn connect_to(path: &Path, timeout: Duration) -> anyhow::Result<UnixStream> {
    const RUNS: &str = "does the tracker or the peer run, and with --control?";
    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // A server that hangs has connections that wait, and at some point no room for more.
    setsockopt(&fd, sockopt::SendTimeout, &time_value(timeout))?;
    match connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &address) {
        Ok(()) => Ok(fd.into()),
        Err(Errno::ENOENT) => bail!("there is no such file; {RUNS}"),
        Err(Errno::ECONNREFUSED) => {
            let file_type = std::fs::metadata(path).map(|metadata| metadata.file_type());
            let is_socket = file_type.is_ok_and(|file_type| file_type.is_socket());
            ensure!(is_socket, "it is no socket");
            bail!("nobody listens there any more; {RUNS}")
        }
        Err(Errno::EACCES) => {
            bail!("permission denied; it is for root, and the user that the server runs as")
        }
        Err(Errno::EAGAIN) => bail!("the server is there and does not answer"),
        Err(error) => Err(error.into()),
    }
}

fn time_value(time: Duration) -> TimeVal {
    TimeVal::new(time.as_secs() as i64, i64::from(time.subsec_micros()))
}

fn is_close(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

fn exchange(mut stream: UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    stream.write_all(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 1 << 16]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) if bytes.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if bytes.len() as u64 > MOST {
            return Err(io::Error::other("its answer has no end"));
        }
    }
}

/// The body of a successful response.
fn body(bytes: &[u8]) -> anyhow::Result<&[u8]> {
    let mut fields = [EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = response.parse(bytes) else {
        bail!("it answered something that is no status");
    };
    let body = &bytes[length..];
    let announced = response
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"))
        .and_then(|field| std::str::from_utf8(field.value).ok()?.parse::<usize>().ok());
    ensure!(
        announced.is_none_or(|length| length == body.len()),
        "its answer is not complete"
    );
    match response.code {
        Some(200) => Ok(body),
        Some(503) => bail!("it has too many connections, try again"),
        code => bail!("it answered with status {}", code.unwrap_or_default()),
    }
}
