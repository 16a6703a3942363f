//! A terminal on which the program draws.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::{Winsize, openpty};

/// What was written to a terminal.
pub struct Terminal {
    written: Arc<Mutex<Vec<u8>>>,
    /// Without it the master would be hung up as soon as the program ends.
    _slave: OwnedFd,
}

impl Terminal {
    /// One of this size, and the end of it for a program.
    pub fn new(columns: u16, rows: u16) -> (Self, File) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(&size, None).expect("a terminal");
        let written = Arc::new(Mutex::new(Vec::new()));
        let (all, mut master) = (Arc::clone(&written), File::from(pair.master));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = master.read(&mut buffer) {
                all.lock().expect("a lock").extend_from_slice(&buffer[..n]);
            }
        });
        let slave = pair.slave.try_clone().expect("a descriptor");
        let terminal = Self {
            written,
            _slave: pair.slave,
        };
        (terminal, slave.into())
    }

    /// All that was written so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().expect("a lock")).into_owned()
    }
}
