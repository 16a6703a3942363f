//! A server within the generator that does as little as possible: no session, no limit, no deadline, one reply for
//! everybody. What the generator reaches against it is the most that it could measure of anybody.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{Backlog, listen};

use crate::compare::traffic::Traffic;

/// The event of the listener; those of connections are their descriptors.
const LISTENER: u64 = u64::MAX;

/// Starts it in a thread of this process, which lasts as long as the process.
///
/// # Errors
/// Where it cannot listen.
pub fn start(traffic: Traffic) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // std has a backlog of 128, and 256 clients come at once.
    listen(&listener, Backlog::new(4096)?)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let reply = traffic.shortest_reply();
    std::thread::Builder::new()
        .name("responder".into())
        .spawn(move || {
            // An error ends the thread; the generator then finds that nobody answers.
            let _ = respond(&listener, &epoll, traffic.request(0).len(), &reply);
        })?;
    Ok(address)
}

fn respond(listener: &TcpListener, epoll: &Epoll, request: usize, reply: &[u8]) -> io::Result<()> {
    let mut connections: HashMap<u64, TcpStream> = HashMap::new();
    let mut events = [EpollEvent::empty(); 256];
    let mut buffer = vec![0; request];
    loop {
        let n = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..n] {
            if event.data() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    let token = stream.as_raw_fd() as u64;
                    epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
                    connections.insert(token, stream);
                }
            } else if let Some(stream) = connections.get_mut(&event.data()) {
                // Requests are small and come whole.
                let answered = matches!(stream.read(&mut buffer), Ok(n) if n > 0)
                    && stream.write_all(reply).is_ok();
                if !answered {
                    connections.remove(&event.data());
                }
            }
        }
    }
}
