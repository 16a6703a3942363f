//! A node of the network: what `get` and `peer` have in common.
//!
//! The supervisor opens files and sockets, starts the roles as processes of their own, and monitors them:
//!
//! ```text
//! supervisor
//! ├─ listener        accept → one child per connection      crate::server
//! ├─ announcer       one per tracker; peers found → pipe    announcer
//! ├─ verifier        what is there of a file, on all cores  crate::store::verify
//! └─ downloader      one per unfinished file                crate::download
//!    ├─ worker       one remote peer; reports → pipe
//!    └─ whole-file hash
//! ```
//!
//! Files that come and go later are handed over to the running listener: see [`handover`].
//!
//! The supervisor never reads a byte that a stranger sent. Which blocks are present, and the progress of downloads, it
//! reads from shared memory.

pub mod announcer;
mod command;
pub mod display;
mod files;
mod finishing;
pub mod handover;
mod hashed;
pub mod item;
mod metadata;
mod names;
mod place;
mod roles;
pub mod status;
mod supervisor;
mod throttle;
pub mod told;
mod verifier;
pub mod vitals;

pub use files::{FileList, FileSpec, ReadList};
pub use hashed::{FileState, Hashed};
pub use place::{Place, TrackerAddress};

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::cli::{Reporting, Sources};
use crate::confine::reader::Reader;
use crate::confine::{Confinement, Role, keeper};
use crate::daemon::sockets::Listen;
use crate::events::{Event, Events};
use crate::exit::Status;
use crate::net::admission::Admission;
use crate::net::named::NamedPeers;
use crate::server::{Ledger, Limits, Model, limits};
use crate::status::doors::Doors;
use crate::status::report::About;
use crate::sys::pipe::Sender;
use crate::sys::signals::{self, Signals};
use crate::text::escape_path;
use item::{Item, Opening};
use metadata::{Obtained, Telling};
use names::Names;
use place::{Resolved, resolve};
use status::NodeSource;
use supervisor::Supervisor;
use told::Told;
use vitals::Vitals;

/// What a node has to do.
#[derive(Debug)]
pub struct Settings {
    /// The files.
    pub files: FileList,
    /// How that list is read again; nothing where it stays what it is.
    pub files_again: Option<ReadList>,
    /// Where blocks come from.
    pub sources: Sources,
    /// What is told of it.
    pub reporting: Reporting,
    /// What happens to its files, for programs.
    pub events: Events,
    /// Where to serve; nothing where it does not serve.
    pub listen: Option<Listen>,
    /// How to serve.
    pub model: Model,
    /// What those are granted who are served.
    pub limits: Limits,
    /// A daemon serves until a signal, and never gives up; otherwise the node ends when it has everything.
    pub daemon: bool,
    /// Download nothing: what is not complete is an error.
    pub seed_only: bool,
    /// Where the node tells how far it is, instead of printing that.
    pub told: Option<Arc<Sender<Told>>>,
    /// Files that were hashed a moment ago, and need no verification where they are still the same.
    pub hashed: Vec<Hashed>,
    /// Whether it tells each block that it sends as well.
    pub witnessed: bool,
    /// How long to serve after that.
    pub seed_for: Duration,
    /// Give up when nothing arrived for this long.
    pub timeout: Option<Duration>,
    /// The socket at which it tells how it is.
    pub control: Option<PathBuf>,
    /// How the processes that face strangers are confined.
    pub confinement: Confinement,
    /// What the service manager hears of it.
    pub vitals: Rc<Vitals>,
}

impl Settings {
    /// The signals at which it ends. To a daemon a hang-up is no end, but means to read its configuration again.
    fn ending(&self) -> &'static [Signal] {
        const OF_ALL: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
        if self.daemon { &OF_ALL[..2] } else { &OF_ALL }
    }

    /// Whether data are served that lie behind a symbolic link. What is downloaded goes through none.
    fn follows_links(&self) -> bool {
        self.daemon
    }

    /// Tells whoever runs the node.
    fn tell(&self, told: Told) {
        if let Some(to) = &self.told {
            // Where nobody listens any more, this process will follow.
            let _ = to.send(&told);
        }
    }
}

/// How a node ended.
#[derive(Debug)]
pub enum End {
    /// By itself.
    Status(Status),
    /// Because it was asked to, by this signal.
    Signal(Signal),
}

/// Runs a node to its end: resolve names, open sockets, fetch cascade files that are known by their hash only, open
/// files, start the roles, watch them, stop them.
///
/// # Errors
/// Where it cannot begin.
pub fn run(settings: Settings) -> anyhow::Result<End> {
    let of_node = signals_of(&settings);
    run_with(settings, || Signals::new(of_node))
}

/// As [`run`], in a process that was forked as a role, and has the signals of one.
///
/// # Errors
/// Where it cannot begin.
pub fn run_as_role(settings: Settings, signals: Signals) -> anyhow::Result<End> {
    run_with(settings, || Ok(signals))
}

fn run_with(
    mut settings: Settings,
    catch: impl FnOnce() -> io::Result<Signals>,
) -> anyhow::Result<End> {
    limits::raise_descriptor_limit();
    // A cascade file that is to be fetched is searched for before anything is served.
    let waits = settings.files.named.iter().any(FileSpec::is_to_be_fetched);
    let Resolved {
        trackers,
        peers,
        names,
        found,
    } = resolve(&settings.sources, settings.daemon, waits)?;
    let listeners = match settings.listen.take() {
        Some(listen) => listen.open(&mut settings.limits)?,
        None => Vec::new(),
    };
    let mut doors = Doors::open(settings.control.as_deref(), &[], &[], &settings.confinement)?;
    // Until now there was nothing to clean up: a signal had its usual effect, whatever was being waited for.
    let signals = catch()
        .and_then(|signals| settings.vitals.watch(signals))
        .context("cannot catch signals")?;
    let settings = &inside(settings)?;
    let (reader, keeper) = start_reader(settings)?.unzip();
    let (names, names_keeper) = names::start(names, found, &settings.confinement)?.unzip();
    // Files are opened as the user who will own them.
    settings.confinement.leave()?;
    // The user's command may be one that gains rights. Whoever faces strangers gives them up for itself in any case.
    if settings.reporting.exec.is_none() {
        settings.confinement.gain_nothing()?;
    }
    log::log!(level(settings), "{}", settings.confinement);
    let world = World {
        trackers,
        peers,
        listeners,
        reader,
        names,
    };
    let end = run_in(world, settings, &mut doors, &signals);
    doors.stop();
    let keepers = keeper.into_iter().chain(names_keeper);
    keepers.for_each(keeper::wait_for_end);
    end
}

/// What a node has of its surroundings.
struct World {
    trackers: Vec<TrackerAddress>,
    peers: NamedPeers,
    listeners: Vec<TcpListener>,
    reader: Option<Reader<FileList>>,
    names: Option<Names>,
}

fn run_in(
    world: World,
    settings: &Settings,
    doors: &mut Doors,
    signals: &Signals,
) -> anyhow::Result<End> {
    let World {
        trackers,
        peers,
        listeners,
        reader,
        names,
    } = world;
    let grace = settings.limits.grace;
    let list = signals.with_deadline(grace, || settings.files.all())??;
    let admission = Arc::new(Admission::new()?);
    let about = About::now(&listeners).context("cannot look at the listening sockets")?;
    let ledger = Arc::new(Ledger::new().context("cannot share memory with child processes")?);
    let telling = Telling {
        doors,
        source: Arc::new(NodeSource::new(&about, &ledger, &[], &settings.files)),
    };
    let obtained = metadata::obtain(
        &list, settings, &trackers, &peers, &admission, signals, telling,
    )?;
    let (files, status) = match obtained {
        Obtained::Files(files, status) => (files, status),
        Obtained::Stopped(signal) => return Ok(End::Signal(signal)),
    };
    let how = Opening {
        tracked: !trackers.is_empty(),
        late: false,
        follow_links: settings.follows_links(),
    };
    let (items, opened) = signals.with_deadline(grace, || open_files(&files, how))?;
    let status = status.max(opened);
    if items.is_empty() && settings.files.watch.is_none() {
        return Ok(End::Status(status));
    }
    let addresses = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?;
    let place = Place {
        listeners,
        addresses,
        advertise: settings.sources.advertise,
        only_seeds: settings.seed_only,
    };
    let mut supervisor =
        Supervisor::new(settings, trackers, peers, place, items, status, admission)
            .context("cannot share memory with child processes")?;
    supervisor.read_list_with(reader);
    supervisor.look_up_with(names);
    supervisor.tell_at(doors);
    if settings.daemon {
        supervisor.fetch_missing();
    }
    let end = supervisor.run(signals)?;
    supervisor.stop(signals, &end)?;
    Ok(end)
}

/// The signals that mean something to a node, by the time that nobody has changed what they do.
fn signals_of(settings: &Settings) -> &'static [Signal] {
    const OF_ALL: [Signal; 5] = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGCHLD,
        Signal::SIGUSR1,
        Signal::SIGHUP,
    ];
    // One that was started to survive its terminal does.
    if settings.daemon || !signals::is_ignored(Signal::SIGHUP) {
        &OF_ALL
    } else {
        &OF_ALL[..4]
    }
}

/// A daemon's log is kept; who downloads or shares a file waits for that.
fn level(settings: &Settings) -> log::Level {
    if settings.daemon && settings.told.is_none() {
        log::Level::Info
    } else {
        log::Level::Debug
    }
}

/// The files as they are called once the root directory was changed.
fn inside(settings: Settings) -> anyhow::Result<Settings> {
    let confinement = &settings.confinement;
    Ok(Settings {
        files: settings.files.at(|path| confinement.inside(path))?,
        ..settings
    })
}

/// Who reads the list of files again, and who keeps that process alive: the configuration may lie where this process will
/// not see it.
fn start_reader(settings: &Settings) -> anyhow::Result<Option<(Reader<FileList>, Pid)>> {
    let Some(ReadList(read)) = &settings.files_again else {
        return Ok(None);
    };
    let confinement = &settings.confinement;
    let begin = || confinement.enter(Role::Reader);
    let read = || read()?.at(|path| confinement.inside(path));
    let (reader, helper) = Reader::new(begin, read).context("cannot begin")?;
    let begin = || {
        confinement.become_user()?;
        confinement.gain_nothing()?;
        Ok(None)
    };
    let keeper = keeper::start(vec![helper], begin)?;
    Ok(Some((reader, keeper)))
}

/// Opens every file; says which cannot be opened, and goes on with the others. Answers how it went.
fn open_files(files: &[FileSpec], how: Opening) -> (Vec<Item>, Status) {
    let mut items: Vec<Item> = Vec::new();
    let mut status = Status::Done;
    for FileSpec { cascade, data, .. } in files {
        match open_file(cascade, data, how, &items) {
            Ok(item) => items.extend(item),
            Err(error) => {
                crate::logging::complain(&error);
                status = Status::Failed;
            }
        }
    }
    (items, status)
}

/// What a node needs beside the descriptors of its files: sockets, pipes, shared memory.
const DESCRIPTORS_RESERVED: u64 = 8;

/// Opens a file, unless it was named before. Two files cannot have one place.
fn open_file(
    cascade: &Path,
    data: &Path,
    how: Opening,
    others: &[Item],
) -> anyhow::Result<Option<Item>> {
    let item = Item::open(cascade, data, how)?;
    // What is left out is named; with no descriptor left nothing would be served at all.
    anyhow::ensure!(
        limits::descriptors_left() > DESCRIPTORS_RESERVED,
        "cannot open {}: there are more files than this process may have descriptors for; allow it more (ulimit -n)",
        item.name
    );
    let Some(other) = others
        .iter()
        .find(|other| other.data.place() == item.data.place())
    else {
        return Ok(Some(item));
    };
    anyhow::ensure!(
        other.hash == item.hash,
        "cannot download {} to {}: another file goes there",
        escape_path(cascade),
        item.name
    );
    Ok(None)
}

/// A daemon prints where it listens, for scripts, before its first accept.
fn announce_listeners(listeners: &[TcpListener], settings: &Settings) -> anyhow::Result<()> {
    for listener in listeners {
        let address = listener.local_addr()?;
        settings.events.emit(|| Event::Listening { address });
        settings.tell(Told::Listening(address.port()));
        if settings.reporting.json || settings.told.is_some() {
            continue;
        }
        if settings.daemon {
            // Nobody may want to know, and others still want to be served.
            crate::output::print_bytes(format!("listening on {address}\n").as_bytes())?;
        } else {
            log::debug!("listening on {address}");
        }
    }
    Ok(())
}
