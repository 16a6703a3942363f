//! A detached thread for each connection: the textbook's echoservert.
//!
//! Threads share the memory of the process: a report is applied by the thread whose session makes it, under a lock.
//! Signals are left to the loop, and the process never forks.

use std::io;
use std::net::TcpListener;
use std::thread;

use super::accept::Door;
use super::crew::Crew;
use super::limits::Limits;
use super::tally::Tally;
use crate::service::Service;
use crate::sys::signals::{self, Signals};

/// The stack of a thread. The system gives it what it touches.
const STACK: usize = 512 << 10;

/// Serves connections, a thread for each, until TERM or INT.
///
/// # Errors
/// Where the loop itself cannot go on.
#[inline(never)]
pub fn serve<S: Service>(
    listeners: &[TcpListener],
    service: &S,
    limits: &Limits,
    signals: &Signals,
) -> io::Result<Tally> {
    let crew = Crew::new(service, limits, limits.max_connections)?;
    let mut door = Door::open(listeners, signals)?;
    thread::scope(|scope| {
        while !door.is_stopping() {
            let mut ready = door.wait(crew.has_room(), Some(crew.news()), crew.tick())?;
            crew.clear();
            while crew.has_room()
                && let Some((stream, remote)) = door.accept(&mut ready)
            {
                let job = crew.job(stream, remote);
                let crew = &crew;
                let life = move || {
                    signals::leave_to_the_loop();
                    crew.serve(job);
                };
                // Dropping the handle detaches the thread: its memory is freed when it ends.
                let thread = thread::Builder::new().stack_size(STACK);
                if let Err(error) = thread.spawn_scoped(scope, life) {
                    log::warn!("cannot start a thread for {remote}: {error}; newcomers wait");
                    crew.turned_away();
                    door.pause();
                    break;
                }
            }
        }
        crew.stop(door.close(limits.grace))
    })?;
    Ok(crew.tally())
}
