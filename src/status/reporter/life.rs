//! The reporter's main loop.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::Subject;
use super::shelf::Shelf;
use crate::confine::{Confinement, Role};
use crate::faults;
use crate::logging::exit_code;
use crate::status::answers::Answers;
use crate::status::doors::Doors;
use crate::status::process::{Process, earlier};
use crate::status::service::Source;
use crate::status::survey::Survey;
use crate::status::tracker::TrackerSource;
use crate::sys::child::{self, Ended};
use crate::sys::fork;
use crate::sys::passing::{self, Passed};
use crate::sys::poll::wait_readable;
use crate::sys::signals::Signals;
use crate::tracker::roll::Roll;

/// The longest wait, if nothing happens.
const LONG: Duration = Duration::from_secs(3600);

/// The main function of the process. It blocks all signals, and ends with the tracker.
pub fn live(
    doors: &mut Doors,
    subject: &Subject,
    confinement: &Confinement,
    shelf: &Shelf,
    socket: &OwnedFd,
) -> anyhow::Result<()> {
    SigSet::all().thread_block()?;
    let signals = Signals::new(&[Signal::SIGCHLD])?;
    confinement.enter(Role::Reporter {
        directory: doors.directory(),
        asks: subject.survey > 0,
    })?;
    faults::at("reporter");
    let mut reporter = Reporter {
        subject,
        confinement,
        doors,
        surveyor: (subject.survey > 0)
            .then(|| Process::new("asks peers how much they have".into())),
        told: None,
    };
    if let Some(left) = shelf.look()? {
        reporter.follow(left)?;
    }
    loop {
        let left = reporter
            .start()
            .map(|due| due.saturating_duration_since(Instant::now()));
        let fds = [Some(signals.as_fd()), Some(socket.as_fd())];
        let ready = wait_readable(&fds, Some(left.unwrap_or(LONG)))?;
        if ready[0] {
            signals.clear();
            reporter.reap()?;
        }
        if ready[1] {
            // It is taken once it is on the shelf: this process may be killed in between.
            let Some(passed) = passing::peek(socket.as_fd())? else {
                break;
            };
            shelf.put(&passed)?;
            passing::receive(socket.as_fd())?;
            reporter.follow(passed)?;
        }
    }
    reporter.end();
    reporter.doors.stop();
    Ok(())
}

/// The state of a reporter.
struct Reporter<'a> {
    subject: &'a Subject,
    confinement: &'a Confinement,
    doors: &'a mut Doors,
    /// The process that asks peers, if they are asked.
    surveyor: Option<Process>,
    /// What is reported, once there is a registry.
    told: Option<Told>,
}

/// What the processes need that are started.
struct Told {
    source: Arc<dyn Source>,
    roll: Roll,
    survey: Option<Survey>,
}

impl Reporter<'_> {
    /// Reports on this registry from now on.
    fn follow(&mut self, passed: Passed) -> anyhow::Result<()> {
        let roll = Roll::taken(passed)?;
        let Subject {
            about,
            ledger,
            survey,
        } = self.subject;
        let asks = self.surveyor.is_some();
        let answers = asks.then(Answers::new).transpose()?.map(Arc::new);
        let source = TrackerSource {
            about: about.clone(),
            ledger: Arc::clone(ledger),
            roll: roll.clone(),
            answers: answers.clone(),
        };
        self.end();
        self.told = Some(Told {
            source: Arc::new(source),
            roll,
            survey: answers.map(|answers| Survey {
                per_second: *survey,
                answers,
                ledger: Arc::clone(ledger),
            }),
        });
        Ok(())
    }

    /// Starts the processes that are due; returns when the next one is.
    fn start(&mut self) -> Option<Instant> {
        let Told {
            source,
            roll,
            survey,
        } = self.told.as_ref()?;
        let confinement = self.confinement;
        let due = self.doors.start(source, confinement);
        let asking = self.surveyor.as_mut().zip(survey.as_ref());
        let next = asking.and_then(|(surveyor, survey)| {
            let life = || exit_code("the poller of peers", survey.run(roll, confinement));
            surveyor.start(|| fork::spawn_leaf(&[], life))
        });
        earlier(due, next)
    }

    /// Kills all processes; they are due then.
    fn end(&mut self) {
        self.doors.restart();
        if let Some(surveyor) = &mut self.surveyor {
            surveyor.end();
        }
    }

    fn reap(&mut self) -> anyhow::Result<()> {
        for ended in child::ended() {
            self.ended(ended?);
        }
        Ok(())
    }

    fn ended(&mut self, ended: Ended) {
        if !self.doors.ended(ended)
            && let Some(surveyor) = &mut self.surveyor
        {
            surveyor.ended(ended);
        }
    }
}
