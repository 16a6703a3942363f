//! What a flow of control costs, and what it costs to share a figure with one.
//!
//! Each kind is measured in a process of its own, so that neither memory nor threads of another are in it.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::wait::waitpid;
use serde::{Deserialize, Serialize};

use super::part::{self, Complaints, Part, Stop};
use super::stats::Spread;
use crate::sys::cycles;
use crate::sys::fork;
use crate::sys::pipe::{Received, Record, packet_pipe};
use crate::sys::poll::wait_readable;
use crate::sys::shared::Shared;
use std::os::fd::AsFd;

/// The memory that a parent has touched, in bytes.
const TOUCHED: usize = 32 << 20;
const PAGE: usize = 4096;
/// How often each kind is made, per round.
const TIMES: usize = 150;
/// How many updates are shared.
const UPDATES: u64 = 20_000;
const LIMIT: Duration = Duration::from_secs(60);

/// A flow of control, and the parent that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A process of a small parent.
    Process,
    /// A process of a parent with 32 MiB of private memory that it has touched.
    ProcessPrivate,
    /// A process of a parent with 32 MiB of shared memory that it has touched.
    ProcessShared,
    /// A thread.
    Thread,
}

impl Kind {
    /// Every kind, in the order of the table.
    pub const ALL: [Self; 4] = [
        Self::Process,
        Self::ProcessPrivate,
        Self::ProcessShared,
        Self::Thread,
    ];

    /// A few words for the tables.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::ProcessPrivate => "process, 32 MiB private",
            Self::ProcessShared => "process, 32 MiB shared",
            Self::Thread => "thread",
        }
    }

    /// The textbook's figure, in cycles: about 20,000 for a process, 10,000 or less for a thread.
    fn textbook(self) -> Option<u64> {
        match self {
            Self::Process => Some(20_000),
            Self::Thread => Some(10_000),
            Self::ProcessPrivate | Self::ProcessShared => None,
        }
    }
}

/// What it costs to create a flow of control, to let it do nothing, and to wait for its end.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// What was made.
    pub kind: Kind,
    /// Microseconds: the median of each round.
    pub microseconds: Spread,
    /// Cycles of the time-stamp counter; none where the processor has none.
    pub cycles: Option<Spread>,
    /// What the textbook says, in cycles.
    pub textbook_cycles: Option<u64>,
}

/// What it takes to share a figure with the flow of control that counts it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sharing {
    /// How often the figure was increased.
    pub updates: u64,
    /// Increases in a child's ordinary memory that its parent sees.
    pub seen_private: u64,
    /// Increases in a child's shared memory that its parent sees.
    pub seen_shared: u64,
    /// Increases by a thread that the others see.
    pub seen_thread: u64,
    /// Nanoseconds per increase by a thread.
    pub thread_ns: f64,
    /// Nanoseconds per increase in shared memory.
    pub shared_ns: f64,
    /// Nanoseconds per increase that a child reports through a pipe.
    pub pipe_ns: f64,
}

/// What the part is to measure.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Order {
    Cost(Kind),
    Sharing,
}

/// A part's answer: microseconds and cycles.
type Figures = (f64, Option<f64>);

/// Measures all kinds, in so many rounds.
///
/// # Errors
/// Where a part fails, or a signal stops the comparison.
pub fn measure(rounds: usize, stop: &Stop) -> io::Result<Vec<Cost>> {
    let mut figures: [Vec<Figures>; Kind::ALL.len()] = Default::default();
    for _ in 0..rounds {
        for (kind, figures) in Kind::ALL.into_iter().zip(&mut figures) {
            figures.push(ask(Order::Cost(kind), stop)?);
        }
    }
    let costs = Kind::ALL
        .into_iter()
        .zip(figures)
        .filter_map(|(kind, figures)| {
            Some(Cost {
                kind,
                microseconds: Spread::of(figures.iter().map(|figures| figures.0))?,
                cycles: Spread::of(figures.iter().filter_map(|figures| figures.1)),
                textbook_cycles: kind.textbook(),
            })
        });
    Ok(costs.collect())
}

/// Measures what sharing takes.
///
/// # Errors
/// As [`measure`].
pub fn sharing(stop: &Stop) -> io::Result<Sharing> {
    ask(Order::Sharing, stop)
}

fn ask<T: serde::de::DeserializeOwned>(order: Order, stop: &Stop) -> io::Result<T> {
    let mut part = Part::start::<&str>("cost", &[], Complaints::Shown)?;
    part.order(&order)?;
    part.answer(stop, LIMIT)
}

/// The part's whole life.
///
/// # Errors
/// Where processes or memory cannot be had.
pub fn run() -> io::Result<()> {
    match part::take_order()? {
        None => Ok(()),
        Some(Order::Sharing) => part::give_answer(&measure_sharing()?),
        Some(Order::Cost(kind)) => part::give_answer(&measure_kind(kind)?),
    }
}

fn measure_kind(kind: Kind) -> io::Result<Figures> {
    match kind {
        Kind::Process => timed(process),
        Kind::Thread => timed(thread),
        Kind::ProcessPrivate => {
            let mut memory = vec![0_u8; TOUCHED];
            memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
            let figures = timed(process);
            black_box(&memory);
            figures
        }
        Kind::ProcessShared => {
            let memory = Shared::<AtomicU64>::new(TOUCHED / size_of::<AtomicU64>())?;
            let cells = memory.iter().step_by(PAGE / size_of::<AtomicU64>());
            cells.for_each(|cell| cell.store(1, Ordering::Relaxed));
            timed(process)
        }
    }
}

fn timed(mut make: impl FnMut() -> io::Result<()>) -> io::Result<Figures> {
    let mut microseconds = Vec::with_capacity(TIMES);
    let mut cycles = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let (begin, first) = (Instant::now(), cycles::timestamp());
        make()?;
        let last = cycles::timestamp();
        microseconds.push(begin.elapsed().as_secs_f64() * 1e6);
        cycles.extend(
            first
                .zip(last)
                .map(|(first, last)| last.saturating_sub(first) as f64),
        );
    }
    let median = |figures| Spread::of(figures).map(|spread| spread.median);
    Ok((median(microseconds).unwrap_or_default(), median(cycles)))
}

/// As the servers of this program make one.
fn process() -> io::Result<()> {
    let pid = fork::spawn_leaf(&[], || 0)?;
    waitpid(pid, None)?;
    Ok(())
}

fn thread() -> io::Result<()> {
    let thread = std::thread::Builder::new().spawn(|| {})?;
    thread
        .join()
        .map_err(|_| io::Error::other("a thread failed"))
}

/// One more, as a report through a pipe.
struct One;

impl Record for One {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(1);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        (bytes == [1]).then_some(Self)
    }
}

fn measure_sharing() -> io::Result<Sharing> {
    let private = AtomicU64::new(0);
    let shared = Shared::<AtomicU64>::new(2)?;
    let child = fork::spawn_leaf(&[], || {
        count(&private);
        shared[1].store(nanoseconds(|| count(&shared[0])), Ordering::Relaxed);
        0
    })?;
    waitpid(child, None)?;
    let pipe_ns = measure_pipe()?;
    // Last: a process with threads does not fork.
    let threaded = Arc::new(AtomicU64::new(0));
    let own = Arc::clone(&threaded);
    let thread = std::thread::spawn(move || nanoseconds(|| count(&own)));
    let thread_time = thread
        .join()
        .map_err(|_| io::Error::other("a thread failed"))?;
    let per_update = |total: u64| total as f64 / UPDATES as f64;
    Ok(Sharing {
        updates: UPDATES,
        seen_private: private.load(Ordering::Relaxed),
        seen_shared: shared[0].load(Ordering::Relaxed),
        seen_thread: threaded.load(Ordering::Relaxed),
        thread_ns: per_update(thread_time),
        shared_ns: per_update(shared[1].load(Ordering::Relaxed)),
        pipe_ns,
    })
}

fn count(figure: &AtomicU64) {
    for _ in 0..UPDATES {
        black_box(figure).fetch_add(1, Ordering::Relaxed);
    }
}

fn nanoseconds(work: impl FnOnce()) -> u64 {
    let begin = Instant::now();
    work();
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The parent takes reports until its child has made all of them.
fn measure_pipe() -> io::Result<f64> {
    let (sender, receiver) = packet_pipe::<One>()?;
    let begin = Instant::now();
    let child = fork::spawn_leaf(&[sender.as_fd()], || {
        u8::from((0..UPDATES).any(|_| sender.send(&One).is_err()))
    })?;
    let mut seen = 0;
    while seen < UPDATES && begin.elapsed() < LIMIT {
        match receiver.receive()? {
            Received::Record(One) => seen += 1,
            Received::Empty => {
                wait_readable(&[Some(receiver.as_fd())], Some(Duration::from_millis(100)))?;
            }
            Received::Garbage | Received::Closed => break,
        }
    }
    let took = begin.elapsed();
    waitpid(child, None)?;
    Ok(took.as_nanos() as f64 / UPDATES as f64)
}
