//! A fixed pool of threads, fed through a bounded buffer, as CS:APP's `echoservert-pre`.
//!
//! No thread is started while clients wait, and the pool's size limits how many are served at once. The loop accepts
//! only connections for which the buffer has room, so it never blocks on it; the others wait in the backlog.

use std::io;
use std::net::TcpListener;
use std::thread;

use super::accept::Door;
use super::crew::Crew;
use super::guests::Guests;
use super::ledger::Ledger;
use super::limits::Limits;
use super::orders;
use super::reception::Reception;
use super::sbuf::Sbuf;
use crate::service::Service;
use crate::sys::signals::{self, Signals};

/// Serves connections in `limits.pool` threads until TERM or INT.
///
/// # Errors
/// Where the threads cannot be started, or the loop itself fails.
#[inline(never)]
pub fn serve<S: Service>(
    listeners: &[TcpListener],
    service: &S,
    limits: &Limits,
    ledger: &Ledger,
    signals: &Signals,
) -> io::Result<()> {
    let pool = limits.pool.clamp(1, limits.max_connections);
    // As many wait in the buffer as are served: a thread that is done finds the next one at once.
    let buffer = Sbuf::new(pool);
    let guests = Guests::new(limits.max_per_address)?;
    let crew = Crew::new(service, limits, ledger, &guests, 2 * pool)?;
    let reception = Reception::new(&guests, ledger, service.regret());
    let mut door = Door::open(listeners, signals, reception)?;
    let work = || {
        signals::leave_to_the_loop();
        while let Some(job) = buffer.remove() {
            crew.serve(job);
        }
    };
    thread::scope(|scope| {
        for _ in 0..pool {
            thread::Builder::new()
                .spawn_scoped(scope, work)
                .inspect_err(|_| buffer.close())?;
        }
        let heed = || {
            let helpers = format_args!("threads: {pool}");
            orders::heed(signals, service, ledger, helpers);
        };
        let served = feed(&mut door, &crew, &buffer, heed);
        // What waits in the buffer is still served, as far as its request has arrived.
        let stopped = crew.stop(door.close(limits));
        buffer.close();
        served.and(stopped)
    })
}

/// The accept loop: puts connections into the buffer, and handles signals.
fn feed<S: Service>(
    door: &mut Door<'_>,
    crew: &Crew<'_, S>,
    buffer: &Sbuf<super::crew::Job>,
    heed: impl Fn(),
) -> io::Result<()> {
    while !door.is_stopping() {
        let mut ready = door.wait(crew.has_room(), Some(crew.news()), crew.tick())?;
        crew.clear();
        if ready.signal {
            heed();
        }
        while crew.has_room()
            && let Some(guest) = door.accept(&mut ready)
        {
            buffer.insert(crew.job(guest));
        }
    }
    Ok(())
}
