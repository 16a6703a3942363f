//! A detached thread for each connection, as CS:APP's `echoservert`.
//!
//! Threads share the memory of the process: a report is applied under a lock by the thread whose session makes it. Only
//! the accept loop handles signals, and the process never forks.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::accept::Door;
use super::crew::Crew;
use super::guests::Guests;
use super::ledger::Ledger;
use super::limits::Limits;
use super::orders;
use super::reception::Reception;
use crate::service::Service;
use crate::sys::signals::{self, Signals};

/// The stack size of a thread, in bytes. Only the pages that it touches take memory.
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
    ledger: &Ledger,
    signals: &Signals,
) -> io::Result<()> {
    let guests = Guests::new(limits.max_per_address)?;
    let crew = Crew::new(service, limits, ledger, &guests, limits.max_connections)?;
    let reception = Reception::new(&guests, ledger, service.regret());
    let mut door = Door::open(listeners, signals, reception)?;
    thread::scope(|scope| {
        while !door.is_stopping() {
            let mut ready = door.wait(crew.has_room(), Some(crew.news()), crew.tick())?;
            crew.clear();
            if ready.signal {
                let helpers = format_args!("threads: {}", crew.count());
                orders::heed(signals, service, ledger, helpers);
            }
            while crew.has_room()
                && let Some(guest) = door.accept(&mut ready)
            {
                // Where there is no thread for it, the loop takes it back.
                let job = Arc::new(Mutex::new(Some(crew.job(guest))));
                let (crew, taken) = (&crew, Arc::clone(&job));
                let life = move || {
                    signals::leave_to_the_loop();
                    take(&taken).into_iter().for_each(|job| crew.serve(job));
                };
                // Dropping the handle detaches the thread: its memory is freed when it ends.
                let thread = thread::Builder::new().stack_size(STACK);
                if let Err(error) = thread.spawn_scoped(scope, life)
                    && let Some(job) = take(&job)
                {
                    let why = format_args!("cannot start a thread: {error}; newcomers wait");
                    door.send_off(crew.give_up(job), why);
                    break;
                }
            }
        }
        crew.stop(door.close(limits))
    })
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}
