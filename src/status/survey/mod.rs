//! The survey: asks a tracker's peers how much of their files they have, for status reports.
//!
//! ```text
//! surveyor     sees who is registered, and when whom to ask      schedule
//! └─ question  a process for each: one peer, one map → a pipe    question
//! ```
//!
//! The answers go to a table that those who tell the status read. Nobody is asked on a stranger's word: a peer that
//! registered itself from its own address, or one for which the operator vouches, and no other. So the tracker cannot be
//! made to connect to an address that has never heard of it. (The port is what was said: where many hosts share an
//! address, it may be another's.)

mod question;
mod schedule;

use std::io::{self, PipeReader};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

use super::answers::{Answers, Key};
use crate::confine::{Confinement, Role};
use crate::faults;
use crate::net::admission::{Admission, Admitted};
use crate::server::Ledger;
use crate::sys::child::{self, Ended, How};
use crate::sys::fork;
use crate::sys::poll::wait_readable;
use crate::sys::signals::Signals;
use crate::tracker::roll::Roll;
use schedule::{Outcome, Question, Schedule};

/// How many of those are asked that one address has registered: nobody fills the table alone.
const PER_ADDRESS: usize = 64;
/// How often the registry is read. The more peers there are, the longer that takes; it may take up this fraction of the
/// time at most.
const LOOK: Duration = Duration::from_secs(2);
const LOOK_SHARE: u32 = 50;
/// Unanswered questions are given up after this time. (PROTOCOL §4: nobody has failed before 10 s.)
const PATIENCE: Duration = Duration::from_secs(15);

/// The settings of a survey.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The most questions per second.
    pub per_second: u32,
    /// Where the answers go.
    pub answers: Arc<Answers>,
    /// The books of the server, which are none of a surveyor's business.
    pub ledger: Arc<Ledger>,
}

impl Survey {
    /// The main function of the process, which blocks all signals.
    ///
    /// # Errors
    /// Where its loop fails.
    pub fn run(&self, roll: &Roll, confinement: &Confinement) -> anyhow::Result<()> {
        SigSet::all().thread_block()?;
        let signals = Signals::new(&[Signal::SIGCHLD])?;
        // A process that asks may be taken over by the peer that it asks.
        self.answers.keep_from_children()?;
        self.ledger.protect()?;
        confinement.enter(Role::Surveyor)?;
        faults::at("surveyor");
        let mut surveyor = Surveyor::new(self, roll, confinement)?;
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
    admission: Admission,
    open: Vec<Open>,
    /// When the registry is read next.
    next_look: Instant,
}

/// A question that is open.
struct Open {
    place: usize,
    pid: Pid,
    since: Instant,
    from: PipeReader,
    admitted: Admitted,
}

impl<'a> Surveyor<'a> {
    fn new(survey: &'a Survey, roll: &'a Roll, confinement: &'a Confinement) -> io::Result<Self> {
        let now = Instant::now();
        // A predecessor may have died, or have seen another registry.
        survey.answers.clear();
        Ok(Self {
            answers: &survey.answers,
            roll,
            confinement,
            schedule: Schedule::new(Answers::places(), survey.per_second, now),
            admission: Admission::new()?,
            open: Vec::new(),
            next_look: now,
        })
    }

    /// Reads the registry, if it is time.
    fn look(&mut self) {
        let now = Instant::now();
        if now < self.next_look {
            return;
        }
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since_epoch.unwrap_or_default().as_secs();
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        let confirmed = self.roll.confirmed(seconds, PER_ADDRESS, Answers::places());
        for place in self.schedule.follow(confirmed, now) {
            self.answers.forget(place);
        }
        self.next_look = Instant::now() + LOOK.max(LOOK_SHARE * now.elapsed());
    }

    /// Asks the peers whose turn it is.
    fn ask(&mut self) {
        while let Some(question) = self.schedule.next(Instant::now()) {
            let (now, peer) = (self.admission.now(), question.key.1.into());
            // The registry names no ports of other services.
            let Ok(admitted) = self.admission.admit(now, peer, true) else {
                self.over(question.place, Outcome::NotAsked);
                continue;
            };
            match self.start(&question, admitted) {
                Ok(open) => self.open.push(open),
                Err(error) => {
                    log::debug!("cannot ask a peer how much it has: {error}");
                    self.over(question.place, Outcome::NotAsked);
                }
            }
        }
    }

    fn start(&self, question: &Question, admitted: Admitted) -> io::Result<Open> {
        let (from, to) = io::pipe()?;
        fcntl(&from, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let role = Role::Asker {
            port: question.key.1.port(),
        };
        let life = || question::ask(question, &to);
        let pid = fork::spawn_leaf(&[to.as_fd()], || match self.admission.protect() {
            Ok(()) => self.confinement.confined(role, life),
            Err(_) => 1,
        })?;
        Ok(Open {
            place: question.place,
            pid,
            since: Instant::now(),
            from,
            admitted,
        })
    }

    /// Kills the processes of questions that have been open for too long; they are reaped as others are.
    fn give_up(&self) {
        for open in self
            .open
            .iter()
            .filter(|open| open.since.elapsed() >= PATIENCE)
        {
            child::signal(open.pid, Signal::SIGKILL);
        }
    }

    /// When there is work to do, unless an answer arrives before.
    fn due(&self) -> Instant {
        let impatient = self.open.iter().map(|open| open.since + PATIENCE);
        let next = impatient.chain(self.schedule.due());
        next.min()
            .map_or(self.next_look, |next| next.min(self.next_look))
    }

    fn reap(&mut self) -> anyhow::Result<()> {
        for ended in child::ended() {
            let Ended { pid, how } = ended?;
            if let Some(index) = self.open.iter().position(|open| open.pid == pid) {
                let open = self.open.swap_remove(index);
                let outcome = question::outcome(open.from);
                self.learn(outcome, open.admitted);
                let key = self.over(open.place, outcome);
                // By SIGKILL we end those that take too long.
                if let (Some((_, peer)), How::Killed(signal)) = (key, how)
                    && signal != Signal::SIGKILL
                {
                    log::warn!("the process that asked {peer} how much it has ended: {how}");
                }
            }
        }
        Ok(())
    }

    /// Takes note of what became of a connection.
    fn learn(&self, outcome: Outcome, mut admitted: Admitted) {
        match outcome {
            Outcome::Said(_) | Outcome::NoExtension => self.admission.answered(&mut admitted),
            _ => self.admission.failed(self.admission.now(), admitted),
        }
    }

    /// Takes note of what became of a question; answers who had been asked about what.
    fn over(&mut self, place: usize, outcome: Outcome) -> Option<Key> {
        let key = self.schedule.over(place, outcome, Instant::now())?;
        match outcome {
            Outcome::Said(answer) => self.answers.set(place, &key, answer),
            Outcome::NoExtension => self.answers.forget(place),
            _ if self.schedule.is_lost(place) => self.answers.forget(place),
            _ => {}
        }
        Some(key)
    }
}
