//! The announcer: a process that tells one tracker what this node serves, and passes on the peers that the tracker
//! names.
//!
//! It subscribes once there is a block to serve, and a while later: clients that ask each peer once, and take "not
//! present" for final, are not to be sent here before. Then it subscribes every 10 minutes; sooner at first, because a
//! tracker that is killed restores only what it had saved, and so forgets the newest peers. While a file is incomplete it requests the list of peers in
//! between: soon at first, since peers that start together would find each other late, then less often. A tracker that
//! does not respond is asked again at growing intervals.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::download::progress::{Figure, Progress};
use crate::download::report::{Heard, Listed};
use crate::faults;
use crate::hash::CascadeHash;
use crate::net::connect;
use crate::net::listen;
use crate::store::bitmap::Bitmap;
use crate::sys::fork;
use crate::sys::pipe::Sender;
use crate::text::without_errno;
use crate::tracker::client::{self, AskError};
use crate::wire::tracker::{Command, NOBODY, PeerRecord, Request};

use super::names::Names;
use super::{Place, TrackerAddress};

/// How often a peer subscribes again (PROTOCOL §2).
const RENEW: Duration = Duration::from_secs(600);
/// The first time that it does so; twice as much later the next. However long a tracker takes to save what it knows, a
/// peer that it has lost is missing for little longer than it was known.
const FIRST_RENEWAL: Duration = Duration::from_secs(5);
/// How long the first block of a file is here before others are told of this peer: most of what follows is there by
/// then, and a download that is over by then has served nobody.
const FIRST_BLOCKS: Duration = Duration::from_secs(1);
/// How long leaving may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// The time between two requests for a list, at first and at most; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// At most, while no peer can be fetched from.
const LONELY_PAUSE: Duration = Duration::from_secs(1);
/// The most records of a list that are passed on.
const MOST_TAKEN: usize = 200;
/// At most, for one who wants to know of newcomers soon.
const SHORT_PAUSE: Duration = Duration::from_millis(500);

/// A file that is announced.
#[derive(Debug)]
pub struct Announced<'a> {
    /// For messages.
    pub name: &'a str,
    /// Its name on the network.
    pub hash: CascadeHash,
    /// Whether it is complete shows here.
    pub present: &'a Bitmap,
    /// Whether it was given up shows here.
    pub progress: &'a Progress,
    /// Where the peers go.
    pub found: &'a Sender<Heard>,
}

/// What is known about one file and the tracker.
struct Schedule<'a> {
    file: Announced<'a>,
    subscribe_at: Instant,
    /// How long after the next time it subscribes again.
    renewal: Duration,
    list_at: Instant,
    pause: Duration,
    /// When there was a block to serve; for a file that was complete from the beginning, before that.
    block_since: Option<Instant>,
    was_complete: bool,
}

/// Announces until it is killed; returns the exit status. `number`: which of the node's trackers it is.
pub fn run(
    tracker: &TrackerAddress,
    number: usize,
    place: &Place,
    files: Vec<Announced<'_>>,
    names: Option<&Names>,
) -> u8 {
    let announcer = Announcer {
        tracker,
        number,
        place,
        names,
        own: NOBODY,
        warned: false,
        said: String::new(),
        timeout: client::TIMEOUT,
        longest_pause: LONGEST_PAUSE,
        level: log::Level::Warn,
    };
    run_announcer(announcer, files)
}

/// Requests the list again and again, without long pauses, and passes it on until it is killed; returns the exit
/// status. For a process that neither serves nor downloads here.
pub fn list_often(tracker: &TrackerAddress, files: Vec<Announced<'_>>) -> u8 {
    let announcer = Announcer {
        tracker,
        number: 0,
        place: &Place {
            only_seeds: true,
            ..Place::nowhere()
        },
        names: None,
        own: NOBODY,
        warned: false,
        said: String::new(),
        timeout: client::TIMEOUT,
        longest_pause: SHORT_PAUSE,
        // The peer that shares the files says it as well.
        level: log::Level::Debug,
    };
    run_announcer(announcer, files)
}

fn run_announcer(mut announcer: Announcer<'_>, files: Vec<Announced<'_>>) -> u8 {
    fork::reseed();
    faults::at("announcer");
    let now = Instant::now();
    let mut schedules: Vec<Schedule<'_>> = files
        .into_iter()
        .map(|file| Schedule {
            block_since: None,
            was_complete: file.present.is_full(),
            file,
            subscribe_at: now,
            renewal: FIRST_RENEWAL,
            list_at: now,
            pause: FIRST_PAUSE,
        })
        .collect();
    loop {
        for schedule in &mut schedules {
            schedule.look();
            announcer.attend_to(schedule);
        }
        let Some(next) = schedules
            .iter()
            .map(|schedule| announcer.due(schedule))
            .min()
        else {
            return 0;
        };
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Takes this node off the tracker's lists (PROTOCOL §5, command 3), as far as a moment allows: the tracker forgets it
/// anyway, later. Answers the exit status.
pub fn leave(tracker: &TrackerAddress, place: &Place, hashes: &[CascadeHash]) -> u8 {
    let deadline = Instant::now() + FAREWELL;
    let mut announcer = Announcer {
        tracker,
        number: 0,
        place,
        names: None,
        own: NOBODY,
        warned: true,
        said: String::new(),
        timeout: FAREWELL,
        longest_pause: LONGEST_PAUSE,
        level: log::Level::Warn,
    };
    for hash in hashes {
        announcer.timeout = deadline.saturating_duration_since(Instant::now());
        // A tracker that does not know the command refuses, and that is that.
        if !matches!(
            announcer.ask(Command::Unsubscribe, *hash),
            Ok(_) | Err(AskError::Refused { .. })
        ) {
            return 1;
        }
    }
    0
}

impl Schedule<'_> {
    /// Looks whether there is something to serve.
    fn look(&mut self) {
        if self.block_since.is_none() && self.file.present.count() > 0 {
            self.block_since = Some(Instant::now());
        }
    }

    /// When it may be told that the file is here; where nothing of it is, when to look again.
    fn may_subscribe_at(&self) -> Instant {
        let now = Instant::now();
        match self.block_since {
            _ if self.was_complete => self.subscribe_at.min(now),
            Some(since) => since + FIRST_BLOCKS,
            None => now + FIRST_BLOCKS,
        }
    }
}

/// The bit of a tracker in [`Figure::Registered`]; those with high numbers share the last.
pub fn registered_bit(number: usize) -> u64 {
    1 << number.min(u64::BITS as usize - 1)
}

struct Announcer<'a> {
    tracker: &'a TrackerAddress,
    /// Which of the node's trackers it is.
    number: usize,
    place: &'a Place,
    /// Who is told that the tracker does not answer.
    names: Option<&'a Names>,
    /// What the tracker was told last of where this node is found.
    own: SocketAddrV4,
    warned: bool,
    /// What was said last, so that it is not said again and again.
    said: String,
    /// How long an exchange may take.
    timeout: Duration,
    /// The longest time between two lists.
    longest_pause: Duration,
    /// How much an operator wants to know that a list could not be had.
    level: log::Level,
}

impl Announcer<'_> {
    fn serves(&self) -> bool {
        !self.place.listeners.is_empty()
    }

    /// When a file is due: incomplete, for a list; in any case, for the renewal.
    fn due(&self, schedule: &Schedule<'_>) -> Instant {
        if schedule.file.progress.get(Figure::GivenUp) != 0 {
            return Instant::now() + RENEW;
        }
        let complete = schedule.file.present.is_full();
        let subscribe_at = schedule.may_subscribe_at().max(schedule.subscribe_at);
        match (self.serves(), complete) {
            (true, true) => subscribe_at,
            (true, false) => subscribe_at.min(schedule.list_at),
            (false, false) => schedule.list_at,
            (false, true) => Instant::now() + RENEW,
        }
    }

    fn attend_to(&mut self, schedule: &mut Schedule<'_>) {
        let now = Instant::now();
        if self.due(schedule) > now {
            return;
        }
        let may_subscribe = schedule.may_subscribe_at() <= now;
        if !may_subscribe && schedule.list_at > now {
            // There may be a block by then.
            return;
        }
        let command = if self.serves() && may_subscribe && schedule.subscribe_at <= now {
            Command::Subscribe
        } else {
            Command::List
        };
        let mut answer = self.ask(command, schedule.file.hash);
        let mut refusal = None;
        if command == Command::Subscribe
            && !schedule.file.present.is_full()
            && let Err(error @ AskError::Refused { .. }) = &answer
        {
            // Some do not register private addresses (PROTOCOL §2), but say who else has the file.
            refusal = Some(without_errno(&error.to_string()));
            answer = self.ask(Command::List, schedule.file.hash);
        }
        let now = Instant::now();
        match answer {
            Ok(records) => {
                if command == Command::Subscribe {
                    if refusal.is_none() && self.own != NOBODY {
                        self.note_registered(schedule);
                    }
                    schedule.subscribe_at = now + schedule.renewal;
                    schedule.renewal = (schedule.renewal * 2).min(RENEW);
                }
                self.hand_on(&records, schedule);
                if let Some(error) = refusal {
                    let name = &self.tracker.name;
                    self.say(format!(
                        "tracker {name} does not tell others of this peer: {error}"
                    ));
                }
            }
            Err(error) => {
                if let (Some(names), false) =
                    (self.names, matches!(error, AskError::Refused { .. }))
                {
                    names.look_up_soon();
                }
                let error = without_errno(&error.to_string());
                let hint = match error.contains("timed out") {
                    true => "; is a firewall in the way?",
                    false => "",
                };
                self.say(format!(
                    "cannot ask tracker {}: {error}{hint}",
                    self.tracker.name
                ));
            }
        }
        let retry = now + schedule.pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        schedule.list_at = retry;
        schedule.subscribe_at = schedule.subscribe_at.max(retry);
        let lonely = schedule.file.progress.get(Figure::Peers) == 0;
        let longest = if lonely {
            LONELY_PAUSE
        } else {
            self.longest_pause
        };
        schedule.pause = (schedule.pause * 2).min(longest);
    }

    /// Takes note that the tracker has to be told when this node goes.
    fn note_registered(&self, schedule: &Schedule<'_>) {
        let bit = registered_bit(self.number);
        let registered = schedule.file.progress.cell(Figure::Registered);
        registered.fetch_or(bit, Ordering::Relaxed);
    }

    /// Passes the peers to the file's downloader.
    fn hand_on(&mut self, records: &[PeerRecord], schedule: &Schedule<'_>) {
        if schedule.file.present.is_full() {
            return;
        }
        if self.own != NOBODY {
            // If the downloader is gone, its successor will have the next list.
            let _ = schedule.file.found.send(&Heard::Own(self.own.into()));
        }
        if records.is_empty() {
            if !self.place.only_seeds {
                self.say(format!(
                    "tracker {} knows no peer of {} yet; is 'cascade peer' running where the file is?",
                    self.tracker.name, schedule.file.name
                ));
            }
            return;
        }
        self.said.clear();
        for listed in taken(records) {
            let _ = schedule.file.found.send(&Heard::Peer(listed));
        }
    }

    /// Asks the first of the tracker's addresses that answers. Its records are IPv4, and a peer is registered under the
    /// address from which it comes: who serves, asks over IPv6 only where nothing else leads there.
    fn ask(&mut self, command: Command, hash: CascadeHash) -> Result<Vec<PeerRecord>, AskError> {
        let (tracker, timeout) = (self.tracker, self.timeout);
        let (v4, v6): (Vec<_>, Vec<_>) = tracker.addresses.iter().partition(|one| one.is_ipv4());
        if !self.serves() || v4.is_empty() || v6.is_empty() {
            let addresses = connect::by_turns(&tracker.addresses);
            return client::ask_any(&addresses, timeout, |one| self.ask_at(one, command, hash));
        }
        let first = client::ask_any(&v4, timeout, |one| self.ask_at(one, command, hash));
        if matches!(first, Ok(_) | Err(AskError::Refused { .. })) {
            return first;
        }
        client::ask_any(&v6, timeout, |one| self.ask_at(one, command, hash))
    }

    fn ask_at(
        &mut self,
        connection: client::Connection,
        command: Command,
        hash: CascadeHash,
    ) -> Result<Vec<PeerRecord>, AskError> {
        let peer = self.own_address(connection.local_addr(), connection.remote_addr());
        self.own = peer;
        let command = if peer == NOBODY {
            Command::List
        } else {
            command
        };
        let request = Request {
            command,
            hash,
            peer,
        };
        Ok(connection.ask(&request)?.peers)
    }

    /// Where others find this node: where the user says, or at the local address of the connection to the tracker.
    fn own_address(&mut self, local: SocketAddr, tracker: SocketAddr) -> SocketAddrV4 {
        if !self.serves() {
            return NOBODY;
        }
        let elsewhere = !tracker.ip().to_canonical().is_loopback();
        if let Some(advertised) = self.place.advertise {
            let port = advertised
                .port
                .or_else(|| listen::port_of(&self.place.listeners))
                .unwrap_or(0);
            let why =
                "a loopback address is advertised to it: nobody elsewhere can connect to that";
            self.warn_if(elsewhere && advertised.address.is_loopback(), why);
            return SocketAddrV4::new(advertised.address, port);
        }
        let IpAddr::V4(ip) = local.ip().to_canonical() else {
            let why = "it is reached over IPv6, and its records are IPv4: without --advertise nobody learns of us";
            self.warn_if(true, why);
            return NOBODY;
        };
        let Some(own) = listen::reachable_at(&self.place.listeners, ip) else {
            let why = "this peer does not listen on an IPv4 address, and records are IPv4: nobody learns of us";
            self.warn_if(true, why);
            return NOBODY;
        };
        let why =
            "this peer listens on a loopback address only: nobody elsewhere can connect to it";
        self.warn_if(elsewhere && own.ip().is_loopback(), why);
        own
    }

    /// Logs a message once, until another one is due.
    fn say(&mut self, text: String) {
        if self.said != text {
            log::log!(self.level, "{text} (trying again)");
            self.said = text;
        }
    }

    /// Says once what keeps others from finding this node.
    fn warn_if(&mut self, condition: bool, what: &str) {
        if condition && !self.warned {
            self.warned = true;
            log::warn!("tracker {}: {what}", self.tracker.name);
        }
    }
}

/// The peers of a list that are passed on: where it is too long, the first half of as many as may be, which the tracker
/// prefers, and some of the others, which differ each time.
fn taken(records: &[PeerRecord]) -> Vec<Listed> {
    let mut places: Vec<usize> = (0..records.len()).collect();
    fastrand::shuffle(places.get_mut(MOST_TAKEN / 2..).unwrap_or_default());
    places.truncate(MOST_TAKEN);
    let listed = places.into_iter().filter_map(|place| {
        let record = records.get(place)?;
        Some(Listed {
            address: record.address.into(),
            good: record.good,
            place: place.try_into().unwrap_or(u8::MAX),
            last_seen: record.last_seen,
        })
    });
    listed.filter(|listed| listed.address.port() != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_list_the_first_and_a_few_others_are_taken() {
        let record = |number: u32| PeerRecord {
            address: SocketAddrV4::new(number.into(), 9000),
            last_seen: 0,
            good: number == 0,
        };
        let records: Vec<PeerRecord> = (0..5000).map(record).collect();
        for length in [0, 1, 20, MOST_TAKEN] {
            assert_eq!(taken(&records[..length]).len(), length);
        }
        let (one, other) = (taken(&records), taken(&records));
        assert_eq!((one.len(), other.len()), (MOST_TAKEN, MOST_TAKEN));
        assert_eq!(one[..MOST_TAKEN / 2], other[..MOST_TAKEN / 2]);
        assert_ne!(one, other, "they are the same each time");
        assert!(one[0].good && one[0].place == 0 && one[MOST_TAKEN - 1].place == u8::MAX);
    }
}
