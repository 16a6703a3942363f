//! Shows how far work on several files is that is done one after another by threads of this process.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use crate::display::{Board, Job, Phase, REDRAW};
use crate::store::pieces::Observer;

/// The files, and where it is shown how far they are. For a process that does not fork: a thread draws.
pub struct Work {
    board: Board,
    jobs: Vec<Job>,
    /// What is done with them.
    word: &'static str,
}

impl Work {
    /// This is to be done with files of these names and lengths.
    pub fn new(word: &'static str, files: impl Iterator<Item = (String, u64)>) -> Self {
        let job = |(name, total)| Job {
            name,
            phase: Phase::Waiting,
            done: 0,
            have: 0,
            total,
            moved: 0,
            note: String::new(),
            is_news: false,
        };
        Self {
            board: Board::new(),
            jobs: files.map(job).collect(),
            word,
        }
    }

    /// Does the work on one of the files, whose observer is told of each piece.
    pub fn observe<T>(&mut self, index: usize, work: impl FnOnce(Observer<'_>) -> T) -> T {
        let bytes = AtomicU64::new(0);
        let observer = |more| {
            bytes.fetch_add(more, Ordering::Relaxed);
            ControlFlow::Continue(())
        };
        self.jobs[index].phase = Phase::Reading(self.word);
        let result = thread::scope(|scope| {
            let (done, is_done) = mpsc::channel::<()>();
            let (shown, bytes) = (&mut *self, &bytes);
            let draw = move || {
                while is_done.recv_timeout(REDRAW) == Err(RecvTimeoutError::Timeout) {
                    shown.show(index, bytes.load(Ordering::Relaxed));
                }
            };
            // Without such a thread nothing is shown, and the work is done all the same.
            let _ = thread::Builder::new().spawn_scoped(scope, draw);
            let result = work(&observer);
            drop(done);
            result
        });
        self.finish(index);
        result
    }

    /// Nothing more is done about this file.
    pub fn finish(&mut self, index: usize) {
        let job = &mut self.jobs[index];
        (job.phase, job.have) = (Phase::Done, job.total);
    }

    /// Prints something while no row is in its way.
    pub fn aside<R>(&mut self, print: impl FnOnce() -> R) -> R {
        self.board.aside(print)
    }

    fn show(&mut self, index: usize, bytes: u64) {
        let job = &mut self.jobs[index];
        let done = bytes.min(job.total);
        (job.done, job.have, job.moved) = (done, done, done);
        self.board.update(&self.jobs);
    }
}
