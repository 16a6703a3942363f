//! The survey: asks the peers of a tracker how much they have, for those who are told its status.
//!
//! ```text
//! surveyor     sees who is registered, and when whom to ask      schedule
//! └─ question  a process for each: one peer, one map → a pipe    question
//! ```
//!
//! The answers go to a table that those who tell the status read. Nobody is asked on a stranger's word: a peer that
//! registered itself from its own address, or one for which the operator vouches, and no other. So the tracker cannot be
//! made to connect to somebody who has never heard of it.

mod question;
mod schedule;

use std::io::{self, PipeReader};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

use super::answers::Answers;
use crate::confine::{Confinement, Role};
use crate::faults;
use crate::sys::child;
use crate::sys::fork;
use crate::sys::poll::wait_readable;
use crate::sys::signals::Signals;
use crate::tracker::roll::{Most, Roll, RollFile};
use schedule::{Candidate, Question, Schedule};

/// How often the registry is looked at. A look takes longer the more there are: of the time, one part in so many.
const LOOK: Duration = Duration::from_secs(2);
const LOOK_SHARE: u32 = 50;
/// A question that is not answered after so long is given up. (PROTOCOL §4: nobody has failed before 10 s.)
const PATIENCE: Duration = Duration::from_secs(15);

/// Who is to be asked, how often, and where the answers go.
#[derive(Debug, Clone)]
pub struct Survey {
    /// How many questions there are in a second, at most.
    pub per_second: u32,
    /// What was answered.
    pub answers: Arc<Answers>,
}

impl Survey {
    /// The life of the process that asks. No signal that can be blocked ends it.
    ///
    /// # Errors
    /// Where it cannot go on.
    pub fn run(&self, roll: &Roll, confinement: &Confinement) -> anyhow::Result<()> {
        SigSet::all().thread_block()?;
        let signals = Signals::new(&[Signal::SIGCHLD])?;
        confinement.enter(Role::Surveyor)?;
        faults::at("surveyor");
        let mut surveyor = Surveyor::new(self, roll, confinement);
        loop {
            surveyor.look();
            surveyor.ask();
            surveyor.give_up();
            let left = surveyor.due().saturating_duration_since(Instant::now());
            wait_readable(&[Some(signals.as_fd())], Some(left))?;
            signals.clear();
            surveyor.reap()?;
        }
    }
}

/// The process that asks.
struct Surveyor<'a> {
    answers: &'a Answers,
    roll: &'a Roll,
    confinement: &'a Confinement,
    schedule: Schedule,
    open: Vec<Open>,
    /// When the registry is looked at again.
    next_look: Instant,
}

/// A question that is open.
struct Open {
    place: usize,
    pid: Pid,
    since: Instant,
    from: PipeReader,
}

impl<'a> Surveyor<'a> {
    fn new(survey: &'a Survey, roll: &'a Roll, confinement: &'a Confinement) -> Self {
        let now = Instant::now();
        // A predecessor may have died, or have seen another registry.
        survey.answers.clear();
        Self {
            answers: &survey.answers,
            roll,
            confinement,
            schedule: Schedule::new(Answers::places(), survey.per_second, now),
            open: Vec::new(),
            next_look: now,
        }
    }

    /// Sees who is registered, where it is time.
    fn look(&mut self) {
        let now = Instant::now();
        if now < self.next_look {
            return;
        }
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since_epoch.unwrap_or_default().as_secs();
        let most = Most {
            all_peers: Answers::places(),
            ..super::tracker::MOST
        };
        let files = self
            .roll
            .files(u32::try_from(seconds).unwrap_or(u32::MAX), most);
        let left = self.schedule.follow(files.iter().flat_map(candidates), now);
        left.into_iter()
            .for_each(|place| self.answers.forget(place));
        self.next_look = Instant::now() + LOOK.max(LOOK_SHARE * now.elapsed());
    }

    /// Asks those whose turn it is.
    fn ask(&mut self) {
        while let Some(question) = self.schedule.next(Instant::now()) {
            match self.start(&question) {
                Ok(open) => self.open.push(open),
                Err(error) => {
                    log::debug!("cannot ask a peer how much it has: {error}");
                    self.over(question.place, schedule::Outcome::Silent);
                }
            }
        }
    }

    fn start(&self, question: &Question) -> io::Result<Open> {
        let (from, to) = io::pipe()?;
        let role = Role::Asker {
            port: question.key.1.port(),
        };
        let life = || question::ask(question, &to);
        let pid = fork::spawn_leaf(&[to.as_fd()], || self.confinement.confined(role, life))?;
        Ok(Open {
            place: question.place,
            pid,
            since: Instant::now(),
            from,
        })
    }

    /// Ends the questions that have been open for too long; they are reaped as others are.
    fn give_up(&self) {
        for open in self
            .open
            .iter()
            .filter(|open| open.since.elapsed() >= PATIENCE)
        {
            child::signal(open.pid, Signal::SIGKILL);
        }
    }

    /// When there is something to do, unless a question is over before.
    fn due(&self) -> Instant {
        let impatient = self.open.iter().map(|open| open.since + PATIENCE);
        let next = impatient.chain(self.schedule.due());
        next.min()
            .map_or(self.next_look, |next| next.min(self.next_look))
    }

    fn reap(&mut self) -> anyhow::Result<()> {
        for ended in child::ended() {
            let pid = ended?.pid;
            if let Some(index) = self.open.iter().position(|open| open.pid == pid) {
                let Open { place, from, .. } = self.open.swap_remove(index);
                self.over(place, question::outcome(from));
            }
        }
        Ok(())
    }

    /// Takes note of what became of a question.
    fn over(&mut self, place: usize, outcome: schedule::Outcome) {
        let Some(key) = self.schedule.over(place, outcome, Instant::now()) else {
            return;
        };
        match outcome {
            schedule::Outcome::Said(answer) => self.answers.set(place, &key, answer),
            schedule::Outcome::Silent if !self.schedule.is_lost(place) => {}
            schedule::Outcome::NoExtension | schedule::Outcome::Silent => {
                self.answers.forget(place);
            }
        }
    }
}

/// Those of a file who may be asked.
fn candidates(file: &RollFile) -> impl Iterator<Item = Candidate> + '_ {
    let may_be_asked = file
        .registered
        .iter()
        .filter(|peer| peer.own || peer.record.good);
    may_be_asked.map(|peer| ((file.hash, peer.record.address), file.blocks))
}
