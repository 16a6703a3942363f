//! A process for each connection: the model of the textbook's echoserverp, with what a long life needs.
//!
//! The parent waits for four things: a connection (accept, fork, close its copy), a signal (CHLD: reap; TERM, INT:
//! stop), a report of a child (apply it, if the child may say it), and its own clock. It never reads a byte that a
//! stranger sent.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::connection::{canonical, converse};
use super::limits::Limits;
use super::tally::Tally;
use crate::service::{Outcome, Service, Session};
use crate::sys::fork;
use crate::sys::pipe::{Received, Receiver, Record, Sender, packet_pipe};
use crate::sys::poll::wait_readable;
use crate::sys::signals::{self, Signals};

/// How long the listener is left alone after the system refused a descriptor or a process: polling it on would spin.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted in a row before the loop looks at its other duties.
const BURST: usize = 64;

type ReportOf<S> = <<S as Service>::Session as Session>::Report;

/// Serves connections, a child for each, until TERM or INT.
///
/// # Errors
/// Where the loop itself cannot go on.
pub fn serve<S: Service>(
    listeners: &[TcpListener],
    service: &S,
    limits: &Limits,
    signals: &Signals,
) -> io::Result<Tally> {
    fork::assert_single_threaded()?;
    for listener in listeners {
        // A client that gave up between poll and accept must not block the loop.
        listener.set_nonblocking(true)?;
    }
    let (sender, receiver) = packet_pipe()?;
    let mut server = Server {
        service,
        limits,
        sender,
        receiver,
        children: HashMap::new(),
        tally: Tally::default(),
        paused_until: None,
    };
    server.run(listeners, signals)?;
    server.stop(listeners, signals)?;
    Ok(server.tally)
}

struct Server<'a, S: Service> {
    service: &'a S,
    limits: &'a Limits,
    /// The children's end of the report pipe. The parent keeps it, or the pipe polls as hung up without children.
    sender: Sender<Envelope<ReportOf<S>>>,
    receiver: Receiver<Envelope<ReportOf<S>>>,
    children: HashMap<Pid, Child>,
    tally: Tally,
    paused_until: Option<Instant>,
}

/// A child that serves a connection.
struct Child {
    remote: SocketAddr,
    reported: bool,
}

/// A report, and who says it.
struct Envelope<R> {
    pid: i32,
    report: R,
}

impl<R: Record> Record for Envelope<R> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.pid.to_ne_bytes());
        self.report.encode(bytes);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (pid, report) = bytes.split_first_chunk()?;
        Some(Self {
            pid: i32::from_ne_bytes(*pid),
            report: R::decode(report)?,
        })
    }
}

impl<S: Service> Server<'_, S> {
    fn run(&mut self, listeners: &[TcpListener], signals: &Signals) -> io::Result<()> {
        loop {
            let timeout = self.service.tick(SystemTime::now());
            let ready = self.wait(listeners, signals, timeout)?;
            self.apply_reports()?;
            if ready.signal {
                signals.clear();
                self.reap()?;
                if signals
                    .take_any(&[Signal::SIGTERM, Signal::SIGINT])
                    .is_some()
                {
                    return Ok(());
                }
            }
            for (listener, _) in listeners
                .iter()
                .zip(&ready.listeners)
                .filter(|(_, ready)| **ready)
            {
                self.accept_waiting(listener)?;
            }
        }
    }

    /// Waits for a connection, a signal, a report or the time. At the limit the listeners are not polled, so that
    /// newcomers wait in the backlog.
    fn wait(
        &mut self,
        listeners: &[TcpListener],
        signals: &Signals,
        timeout: Duration,
    ) -> io::Result<Ready> {
        let pause = self
            .paused_until
            .map(|until| until.saturating_duration_since(Instant::now()));
        if pause == Some(Duration::ZERO) {
            self.paused_until = None;
        }
        let accepting =
            self.paused_until.is_none() && self.children.len() < self.limits.max_connections;
        let timeout = if self.paused_until.is_some() {
            timeout.min(pause.unwrap_or(PAUSE))
        } else {
            timeout
        };
        let mut fds = vec![Some(signals.as_fd()), Some(self.receiver.as_fd())];
        fds.extend(
            listeners
                .iter()
                .map(|listener| accepting.then(|| listener.as_fd())),
        );
        let ready = wait_readable(&fds, Some(timeout))?;
        Ok(Ready {
            signal: ready[0],
            listeners: ready[2..].to_vec(),
        })
    }

    fn accept_waiting(&mut self, listener: &TcpListener) -> io::Result<()> {
        for _ in 0..BURST {
            if self.children.len() >= self.limits.max_connections {
                return Ok(());
            }
            match listener.accept() {
                // Dropping the stream here closes the parent's copy, on every path.
                Ok((stream, remote)) => self.serve_in_child(&stream, canonical(remote))?,
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EAGAIN) => return Ok(()),
                    Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                        log::warn!("cannot accept a connection: {error}; newcomers wait");
                        self.paused_until = Some(Instant::now() + PAUSE);
                        return Ok(());
                    }
                    // The client gave up, or its network did: accept(2) hands such errors on.
                    _ => {}
                },
            }
        }
        Ok(())
    }

    fn serve_in_child(&mut self, stream: &TcpStream, remote: SocketAddr) -> io::Result<()> {
        // Whoever connected after a subscriber's reply must see the subscriber: its report is in the pipe by now.
        self.apply_reports()?;
        let mut keep = vec![stream.as_fd(), self.sender.as_fd()];
        keep.extend(self.service.descriptors());
        match fork::spawn_leaf(&keep, || self.child(stream, remote)) {
            Ok(pid) => {
                log::debug!("accept pid {pid} from {remote}");
                self.tally.accepted();
                self.children.insert(
                    pid,
                    Child {
                        remote,
                        reported: false,
                    },
                );
            }
            Err(error) => {
                log::warn!("cannot fork for {remote}: {error}; newcomers wait");
                self.paused_until = Some(Instant::now() + PAUSE);
            }
        }
        Ok(())
    }

    /// The child's whole life.
    fn child(&self, stream: &TcpStream, remote: SocketAddr) -> u8 {
        fork::reseed();
        let Ok(own) = stream.try_clone() else {
            return Outcome::Disconnected.exit_status();
        };
        if signals::finish_on_term().is_err() {
            return Outcome::Disconnected.exit_status();
        }
        let pid = std::process::id() as i32;
        let session = self.service.open(remote, SystemTime::now());
        let report = |report| self.sender.send(&Envelope { pid, report });
        converse(own, session, self.limits, report).exit_status()
    }

    /// Applies what children reported, where they may report it: a live child, and once.
    fn apply_reports(&mut self) -> io::Result<()> {
        loop {
            match self.receiver.receive()? {
                Received::Record(Envelope { pid, report }) => match self
                    .children
                    .get_mut(&Pid::from_raw(pid))
                {
                    Some(child) if S::MANY_REPORTS || !child.reported => {
                        child.reported = true;
                        self.service.apply(child.remote, report, SystemTime::now());
                    }
                    _ => log::warn!("a report from pid {pid}, which has none to make, was ignored"),
                },
                Received::Garbage => log::warn!("a report that is none was ignored"),
                Received::Empty | Received::Closed => return Ok(()),
            }
        }
    }

    /// Reaps every child that ended. Signals coalesce, so one CHLD may stand for many.
    fn reap(&mut self) -> io::Result<()> {
        // What a child reported before its end must find it in the table.
        self.apply_reports()?;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => {
                    self.child_ended(pid, Outcome::from_exit_status(status), None)
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.child_ended(pid, Outcome::Crashed, Some(signal))
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn child_ended(&mut self, pid: Pid, outcome: Outcome, signal: Option<Signal>) {
        let Some(child) = self.children.remove(&pid) else {
            self.service.child_ended(pid);
            return;
        };
        match signal {
            Some(signal) => log::warn!(
                "end pid {pid} of {}: signal {} ({signal})",
                child.remote,
                signal as i32
            ),
            None if outcome == Outcome::Crashed => {
                log::warn!("end pid {pid} of {}: crashed", child.remote)
            }
            None => log::debug!("end pid {pid} of {}: {}", child.remote, outcome.describe()),
        }
        self.tally.ended(outcome);
    }

    /// Stops listening, asks the children to finish, and ends those that do not within the grace period.
    fn stop(&mut self, listeners: &[TcpListener], signals: &Signals) -> io::Result<()> {
        for listener in listeners {
            // A child of another role may hold a copy of the descriptor: only shutdown(2) ends the listening.
            let _ =
                nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
        self.signal_children(Signal::SIGTERM);
        let deadline = Instant::now() + self.limits.grace;
        while !self.children.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let again = signals
                .take_any(&[Signal::SIGTERM, Signal::SIGINT])
                .is_some();
            if left.is_zero() || again {
                self.signal_children(Signal::SIGKILL);
            }
            let left = if left.is_zero() || again { PAUSE } else { left };
            let ready = wait_readable(
                &[Some(signals.as_fd()), Some(self.receiver.as_fd())],
                Some(left),
            )?;
            if ready[0] {
                signals.clear();
            }
            self.reap()?;
        }
        self.apply_reports()
    }

    fn signal_children(&self, signal: Signal) {
        for pid in self.children.keys() {
            // A child that just ended is a zombie of ours until it is reaped: the pid cannot be another's.
            let _ = kill(*pid, signal);
        }
    }
}

struct Ready {
    signal: bool,
    listeners: Vec<bool>,
}
