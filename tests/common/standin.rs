//! The machinery of the stand-ins: a listener on threads of the test, what it was asked, and its end. What a
//! stand-in says is a closure: [`super::peers`] and [`super::trackers`] hold the habits.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket,
    sockopt,
};

/// What a stand-in does with a connection.
pub type Talk = dyn Fn(&mut Conn) -> io::Result<()> + Send + Sync;

/// How a stand-in takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// As many as come, each on a thread.
    Together,
    /// One after the other, with a backlog of next to nothing, so that others wait even to be connected.
    OneByOne,
    /// As many as come, but after so many it stops listening for so long, again and again.
    WithPauses(usize, Duration),
}

/// A request that a stand-in received.
#[derive(Debug, Clone)]
pub struct Asked {
    /// On which of its connections, counted from 0.
    pub connection: usize,
    pub bytes: Vec<u8>,
    pub at: Instant,
}

/// A peer or a tracker on threads of the test process. It ends where the test forgets it.
pub struct StandIn {
    address: SocketAddr,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    /// Notified with `stop`.
    stopped: Condvar,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    asked: Vec<Asked>,
    /// What clients did that they have promised not to do.
    faults: Vec<String>,
    /// Connections so far.
    connections: usize,
    /// The connections that are open, to be shut down at the end.
    open: HashMap<usize, TcpStream>,
}

impl State {
    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        // A test that failed while it held the log has said so already.
        self.log
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Waits for the end, at most so long.
    fn wait_for_stop(&self, limit: Duration) {
        let log = self.log();
        let _ = self
            .stopped
            .wait_timeout_while(log, limit, |_| !self.is_stopped());
    }
}

impl StandIn {
    /// Listens on a free port of 127.0.0.1.
    pub fn start(
        accepts: Accepts,
        talk: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let backlog = if accepts == Accepts::OneByOne { 1 } else { 128 };
        let listener = listen_on(0, backlog).expect("a free port to listen on");
        let address = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(State::default());
        let acceptor = {
            let state = Arc::clone(&state);
            std::thread::spawn(move || accept_all(listener, accepts, &state, Arc::new(talk)))
        };
        Self {
            address,
            state,
            acceptor: Some(acceptor),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.log().asked.clone()
    }

    /// The connections so far.
    pub fn connections(&self) -> usize {
        self.state.log().connections
    }

    /// Checks that no client broke a promise.
    #[track_caller]
    pub fn assert_well_treated(&self) {
        let faults = self.state.log().faults.clone();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        {
            let log = self.state.log();
            self.state.stop.store(true, Ordering::SeqCst);
            for stream in log.open.values() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        self.state.stopped.notify_all();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// A listener with a backlog, which std does not let one choose.
fn listen_on(port: u16, backlog: i32) -> io::Result<TcpListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&listener, sockopt::ReuseAddr, &true)?;
    let address = SockaddrIn::from(std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    bind(std::os::fd::AsRawFd::as_raw_fd(&listener), &address)?;
    listen(&listener, Backlog::new(backlog)?)?;
    Ok(listener.into())
}

fn accept_all(mut listener: TcpListener, accepts: Accepts, state: &Arc<State>, talk: Arc<Talk>) {
    let mut threads = Vec::new();
    while let Some(stream) = accept(&listener, state) {
        let number = {
            let mut log = state.log();
            log.connections += 1;
            log.connections - 1
        };
        let (state, talk) = (Arc::clone(state), Arc::clone(&talk));
        match accepts {
            Accepts::OneByOne => converse(stream, number, &state, &*talk),
            Accepts::Together => {
                threads.push(std::thread::spawn(move || {
                    converse(stream, number, &state, &*talk);
                }));
            }
            Accepts::WithPauses(every, pause) => {
                converse(stream, number, &state, &*talk);
                if (number + 1).is_multiple_of(every) {
                    listener = match pause_listening(listener, pause, &state) {
                        Some(listener) => listener,
                        None => break,
                    };
                }
            }
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// The next connection; nothing when it is time to end.
fn accept(listener: &TcpListener, state: &State) -> Option<TcpStream> {
    while !state.is_stopped() {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(20u8));
        if let Ok((stream, _)) = listener.accept() {
            stream
                .set_nonblocking(false)
                .and_then(|()| stream.set_nodelay(true))
                .expect("a new socket takes options");
            return Some(stream);
        }
    }
    None
}

/// Closes the listener, and opens it again on the same port.
fn pause_listening(listener: TcpListener, pause: Duration, state: &State) -> Option<TcpListener> {
    let port = listener.local_addr().expect("it has an address").port();
    drop(listener);
    state.wait_for_stop(pause);
    while !state.is_stopped() {
        if let Ok(listener) = listen_on(port, 128) {
            return Some(listener);
        }
        state.wait_for_stop(Duration::from_millis(20));
    }
    None
}

/// Has one connection from its beginning to its end.
fn converse(stream: TcpStream, number: usize, state: &Arc<State>, talk: &Talk) {
    {
        let mut log = state.log();
        if state.is_stopped() {
            return;
        }
        let copy = stream.try_clone().expect("a descriptor can be copied");
        log.open.insert(number, copy);
    }
    let mut conn = Conn {
        stream,
        number,
        state: Arc::clone(state),
    };
    // A connection that breaks is the client's right; what it may not do is in the faults.
    let _ = talk(&mut conn);
    // The copy goes first, so that dropping the stream closes the connection, with a reset where input waits.
    state.log().open.remove(&number);
}

/// A connection in the hands of a stand-in.
pub struct Conn {
    stream: TcpStream,
    number: usize,
    state: Arc<State>,
}

impl Conn {
    /// A single recv(2) of at most `size` bytes; nothing at the end of input.
    pub fn recv(&mut self, size: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; size];
        let n = self.stream.read(&mut buffer)?;
        buffer.truncate(n);
        Ok(buffer)
    }

    /// Exactly `size` bytes, however they arrive; nothing where the input ends before the first of them.
    pub fn receive(&mut self, size: usize) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        while bytes.len() < size {
            let more = self.recv(size - bytes.len())?;
            if more.is_empty() {
                if !bytes.is_empty() {
                    self.fault(format!("the input ends within a request: {bytes:02x?}"));
                }
                return Ok(None);
            }
            bytes.extend(more);
        }
        Ok(Some(bytes))
    }

    /// Writes a request down as received.
    pub fn note(&self, bytes: Vec<u8>) -> Asked {
        let asked = Asked {
            connection: self.number,
            bytes,
            at: Instant::now(),
        };
        self.state.log().asked.push(asked.clone());
        asked
    }

    /// Writes down that the client broke a promise.
    pub fn fault(&self, what: impl Into<String>) {
        self.state.log().faults.push(what.into());
    }

    /// One write.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// How many bytes have arrived and were not read.
    pub fn unread(&self) -> io::Result<usize> {
        self.stream.set_nonblocking(true)?;
        let mut buffer = [0; 8192];
        let peeked = self.stream.peek(&mut buffer);
        self.stream.set_nonblocking(false)?;
        match peeked {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// Whether input (or its end) arrives within this time.
    pub fn input_within(&self, limit: Duration) -> bool {
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit).expect("a short time");
        poll(&mut fds, limit).is_ok_and(|ready| ready > 0)
    }

    /// Does nothing for so long; ends early where the stand-in ends.
    pub fn pause(&self, time: Duration) {
        self.state.wait_for_stop(time);
    }

    /// Keeps the connection open and is silent until the client has gone.
    pub fn hang(&mut self) -> io::Result<()> {
        while !self.recv(4096)?.is_empty() {}
        Ok(())
    }

    /// How often the stand-in was asked, on all connections.
    pub fn asked_so_far(&self) -> usize {
        self.state.log().asked.len()
    }

    /// Which of the stand-in's connections this is, counted from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The socket, for habits that need more than this.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}
