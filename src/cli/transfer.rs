//! Commands that share and fetch files: `list`, `get`, `peer`, `share`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::daemon::{ConfigOptions, DaemonOptions, StatusOptions};
use super::serving::{LimitOptions, ServerOptions};
use super::values::{Target, Wanted, duration, rate, target_parser, tracker, wanted_parser};
use crate::confine::ConfineOptions;
use crate::net::address::{Advertised, HostPort, ListenAddress};

/// Options that `get` and `peer` share: where blocks come from.
#[derive(Debug, Default, Args)]
pub struct Sources {
    /// A tracker to ask for peers, and to subscribe to [env: CASCADE_TRACKER]
    #[arg(short, long, value_name = "HOST[:PORT]", value_parser = tracker)]
    pub tracker: Vec<HostPort>,
    /// A peer to download from
    #[arg(short, long, value_name = "HOST:PORT")]
    pub peer: Vec<HostPort>,
    /// Worker processes in all [default: the number of cores, at least 4; one per peer if that is more]
    #[arg(short, long, value_name = "WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Replace an existing data file that is not complete, once the download is; what agrees is copied
    #[arg(short, long)]
    pub force: bool,
    /// Mend an existing data file where it lies, without a second copy
    #[arg(long)]
    pub in_place: bool,
    /// Go on with NAME.part, whatever is in it
    #[arg(long)]
    pub adopt: bool,
    /// Send at most this many bytes per second (500KiB, 2MiB), over all connections
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub upload_limit: Option<u64>,
    /// Receive at most this many bytes per second, over all connections
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub download_limit: Option<u64>,
    /// Serve at most N connections at full speed at once; others wait for their turn
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub upload_slots: Option<u16>,
    /// The address under which others reach this peer, where it is not the one that the tracker sees
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub advertise: Option<Advertised>,
    /// Log every connection
    #[arg(short, long)]
    pub verbose: bool,
}

/// Options that `get` and `peer` share: what is told of downloads, and to whom.
#[derive(Debug, Clone, Default, Args)]
pub struct Reporting {
    /// Run this with sh(1) when a file is complete; CASCADE_FILE and CASCADE_HASH say which
    #[arg(long, value_name = "CMD")]
    pub exec: Option<OsString>,
    /// One JSON object per event on standard output
    #[arg(long)]
    pub json: bool,
    /// Say only what goes wrong
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// `cascade list`
#[derive(Debug, Args)]
pub struct List {
    /// The tracker [env: CASCADE_TRACKER]
    #[arg(short, long, value_name = "HOST[:PORT]", value_parser = tracker)]
    pub tracker: Option<HostPort>,
    /// The file
    #[arg(value_name = "CASCADE|HASH", value_hint = ValueHint::FilePath, value_parser = target_parser())]
    pub target: Target,
}

/// `cascade get`
#[derive(Debug, Args)]
pub struct Get {
    /// Put the data into this directory, instead of beside the cascade files
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "output")]
    pub directory: Option<PathBuf>,
    /// The data file (for one CASCADE only)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where blocks come from.
    #[command(flatten)]
    pub sources: Sources,
    /// What is told.
    #[command(flatten)]
    pub reporting: Reporting,
    /// Where to serve what is there [default: a free port, on every address]
    #[arg(short, long, value_name = "[ADDR:]PORT", conflicts_with = "no_serve")]
    pub listen: Vec<ListenAddress>,
    /// Do not serve, and do not subscribe
    #[arg(long)]
    pub no_serve: bool,
    /// Go on serving for this long after the download (30, 5m, 2h)
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "no_serve")]
    pub seed_for: Option<Duration>,
    /// What those are granted whom it serves.
    #[command(flatten)]
    pub limits: LimitOptions,
    /// Give up when nothing arrived for this long
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// What is left to a process that strangers have taken over.
    #[command(flatten)]
    pub confine: ConfineOptions,
    /// Cascade files; or links, or a hash with -o, whose cascade files are fetched first
    #[arg(required = true, value_name = "CASCADE|LINK|HASH", value_parser = wanted_parser())]
    pub files: Vec<Wanted>,
}

/// `cascade peer`
#[derive(Debug, Args)]
pub struct Peer {
    /// What a file says of it.
    #[command(flatten)]
    pub config: ConfigOptions,
    /// The data lie in this directory, instead of beside the cascade files
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
    /// Serve and download every *.cascade in the directory of -d as well
    #[arg(long, requires = "directory")]
    pub watch_dir: bool,
    /// Where blocks come from.
    #[command(flatten)]
    pub sources: Sources,
    /// What is told.
    #[command(flatten)]
    pub reporting: Reporting,
    /// Where to listen [default: a free port, on every address]
    #[arg(short, long, value_name = "[ADDR:]PORT")]
    pub listen: Vec<ListenAddress>,
    /// How clients are served.
    #[command(flatten)]
    pub server: ServerOptions,
    /// What they are granted.
    #[command(flatten)]
    pub limits: LimitOptions,
    /// How it gets on with what runs it.
    #[command(flatten)]
    pub daemon: DaemonOptions,
    /// Who is told how it is.
    #[command(flatten)]
    pub status: StatusOptions,
    /// What is left to a process that strangers have taken over.
    #[command(flatten)]
    pub confine: ConfineOptions,
    /// Cascade files; or links, whose cascade files are fetched first
    #[arg(required_unless_present_any = ["watch_dir", "config"], value_name = "CASCADE|LINK", value_parser = wanted_parser())]
    pub files: Vec<Wanted>,
}

/// `cascade share`
#[derive(Debug, Args)]
pub struct Share {
    /// Subscribe to this tracker, instead of running one
    #[arg(
        short,
        long,
        value_name = "HOST[:PORT]",
        value_parser = tracker,
        conflicts_with = "tracker_listen"
    )]
    pub tracker: Option<HostPort>,
    /// Where the tracker listens [default: 8888, or a free port, on every address]
    #[arg(long, value_name = "[ADDR:]PORT")]
    pub tracker_listen: Vec<ListenAddress>,
    /// Where the peer listens [default: 8889, or a free port, on every address]
    #[arg(short, long, value_name = "[ADDR:]PORT")]
    pub listen: Vec<ListenAddress>,
    /// Make cascade files anew, and replace those that exist
    #[arg(short, long)]
    pub force: bool,
    /// Put cascade files into this directory, instead of beside the data files
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "output")]
    pub directory: Option<PathBuf>,
    /// The cascade file (for one FILE only)
    #[arg(short, long, value_name = "CASCADE")]
    pub output: Option<PathBuf>,
    /// Exit once N hosts have every file
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub copies: Option<u32>,
    /// Exit when nobody has been sent anything for this long (30, 5m, 2h)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// One JSON object per event on standard output
    #[arg(long)]
    pub json: bool,
    /// The address under which others reach this host, where it is not that of its interface
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub advertise: Option<Advertised>,
    /// Send at most this many bytes per second (500KiB, 2MiB), over all connections
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub upload_limit: Option<u64>,
    /// Serve at most N connections at full speed at once; others wait for their turn
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub upload_slots: Option<u16>,
    /// Log every connection
    #[arg(short, long)]
    pub verbose: bool,
    /// Data files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}
