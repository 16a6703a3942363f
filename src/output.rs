//! Results, on standard output.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Context;

/// Writes results to standard output, at once.
///
/// # Errors
/// As write(2); a closed pipe ends the program without a complaint.
pub fn print(text: fmt::Arguments<'_>) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_fmt(text).and_then(|()| stdout.flush());
    written.context("cannot write to standard output")
}

/// Writes a result to standard output, at once. Where nobody reads any more, the work and the exit status still
/// matter.
///
/// # Errors
/// As write(2), but for a closed pipe.
pub fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Whether results are coloured: on a terminal that knows colours, unless the environment asks for none. cascade(1),
/// ENVIRONMENT.
pub fn is_coloured() -> bool {
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    let term = variable("TERM");
    let knows_colours = !term.is_empty() && term != "dumb";
    let wanted = variable("NO_COLOR").is_empty() && variable("CLICOLOR") != "0";
    io::stdout().is_terminal() && knows_colours && wanted
}

/// Says where a server listens, for people and for scripts that wait for it.
///
/// # Errors
/// As [`print_bytes`].
pub fn announce(listeners: &[TcpListener]) -> anyhow::Result<()> {
    for listener in listeners {
        let address = listener.local_addr().context("cannot listen")?;
        // Where nobody reads it, others still want to be served.
        print_bytes(format!("listening on {address}\n").as_bytes())?;
    }
    Ok(())
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// As [`print_bytes`].
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(value).context("cannot encode the result")?;
    line.push(b'\n');
    print_bytes(&line)
}

/// The line of sha256sum(1): hash, two spaces, name; a name with a newline or a backslash in it is escaped, and the
/// line begins with a backslash then.
pub fn sum_line(hash: &impl std::fmt::Display, path: &Path) -> Vec<u8> {
    // A name of "-" means standard input to sha256sum.
    let name = match path.as_os_str().as_bytes() {
        b"-" => b"./-",
        name => name,
    };
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'\\' => escaped.extend(br"\\"),
            b'\n' => escaped.extend(br"\n"),
            b'\r' => escaped.extend(br"\r"),
            byte => escaped.push(*byte),
        }
    }
    let mark = if escaped.len() > name.len() { "\\" } else { "" };
    let mut line = format!("{mark}{hash}  ").into_bytes();
    line.append(&mut escaped);
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_sha256sum_is_escaped_as_sha256sum_does() {
        assert_eq!(sum_line(&"ab", Path::new("x y")), b"ab  x y\n");
        assert_eq!(sum_line(&"ab", Path::new("x\n\\")), b"\\ab  x\\n\\\\\n");
        assert_eq!(sum_line(&"ab", Path::new("-")), b"ab  ./-\n");
    }
}
