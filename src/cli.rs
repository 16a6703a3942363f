//! The command line: what can be typed. No I/O; what it means is decided in [`crate::commands`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};

use crate::compare::plan::ServiceKind;
use crate::confine::ConfineOptions;
use crate::hash::CascadeHash;
use crate::net::address::{Advertised, HostPort, ListenAddress, Port};
use crate::net::link::{Link, LinkError, SCHEME};
use crate::server::{Model, limits};

/// The port on which a tracker listens by default.
pub const TRACKER_PORT: u16 = 8888;

/// Share files in a peer-to-peer network, every block verified.
#[derive(Debug, Parser)]
#[command(
    name = "cascade",
    version,
    about,
    propagate_version = true,
    max_term_width = 100
)]
#[command(
    subcommand_required = true,
    arg_required_else_help = false,
    infer_subcommands = false,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `help` knows besides the commands that have a page of their own, and the section and name of the page.
pub const PAGES: [(&str, &str, &str); 4] = [
    ("help", "1", "cascade"),
    ("cascade", "1", "cascade"),
    ("format", "5", "cascade"),
    ("protocol", "7", "cascade-protocol"),
];

impl Cli {
    /// Reads what was typed.
    ///
    /// # Errors
    /// What is wrong with it, or the help that it asked for.
    pub fn typed() -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::with_topics().try_get_matches()?)
    }

    /// The command line, with the topics that `help` has: the commands, and [`PAGES`].
    pub fn with_topics() -> clap::Command {
        let cli = Self::command();
        let commands = cli
            .get_subcommands()
            .filter(|command| !command.is_hide_set() && command.get_name() != "help")
            .map(|command| command.get_name().to_owned());
        let pages = PAGES.map(|(topic, _, _)| topic.to_owned());
        let topics = PossibleValuesParser::new(commands.chain(pages).collect::<Vec<_>>());
        cli.mut_subcommand("help", |help| {
            help.mut_arg("topic", |topic| topic.value_parser(topics))
        })
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make cascade files, which describe data files block by block
    Create(Create),
    /// Show what cascade files say
    Info(Info),
    /// Check data files against their cascade files
    Verify(Verify),
    /// Run a tracker, which knows the peers of each file
    Tracker(Tracker),
    /// List the peers that a tracker knows for a file
    List(List),
    /// Download files, serving what is there meanwhile
    Get(Get),
    /// Run a peer, which serves files and downloads what is missing
    Peer(Peer),
    /// Share files in one go: describe them, run a tracker and a peer, print the line to run elsewhere
    Share(Share),
    /// Echo lines: a server to try the models with, and its client
    Echo(Echo),
    /// Measure the server models against each other on this machine
    Compare(Compare),
    /// Show the manual page of a command, a format or the protocol
    Help(Help),
    /// Print what makes a shell complete the command line
    Completions(Completions),
    /// A process of a comparison, which starts it
    #[command(hide = true)]
    ComparePart(ComparePart),
}

/// Options that all servers share: how they have several clients at once.
#[derive(Debug, Clone, Copy, Args)]
pub struct ServerOptions {
    /// How several clients are served at once
    #[arg(long, value_enum, default_value_t, value_name = "MODEL")]
    pub model: Model,
    /// Members of the pool of prethread and prefork
    #[arg(long, value_name = "N", value_parser = pool_size, default_value_t = limits::DEFAULT_POOL)]
    pub pool: usize,
}

/// Options that all servers share: what they grant their clients.
#[derive(Debug, Clone, Copy, Args)]
pub struct LimitOptions {
    /// Serve so many connections at once; others wait [default: what the system allows, at most 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub max_connections: Option<u32>,
    /// Serve so many connections of one address at once; others are closed [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub max_per_address: Option<u32>,
    /// Close a connection that is silent for so long between requests [default: 5; of echo, 1h]
    #[arg(long, value_name = "TIME", value_parser = patience)]
    pub idle_timeout: Option<Duration>,
    /// Close a connection on which a whole request takes longer [default: 10; of echo, 1h]
    #[arg(long, value_name = "TIME", value_parser = patience)]
    pub request_timeout: Option<Duration>,
    /// Close a connection whose client takes no byte for so long [default: 30; of echo, 1h]
    #[arg(long, value_name = "TIME", value_parser = patience)]
    pub send_timeout: Option<Duration>,
    /// Close a connection after so long in any case [default: 1h; of echo, 24h]
    #[arg(long, value_name = "TIME", value_parser = patience)]
    pub max_lifetime: Option<Duration>,
    /// Let transfers go on for so long after a signal to stop [default: 10]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub grace: Option<Duration>,
    /// Let so many connections wait to be accepted [default: 1024]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub backlog: Option<u16>,
}

/// `cascade create`
#[derive(Debug, Args)]
pub struct Create {
    /// Block size: bytes, or with a unit (64KiB, 1MiB); by default it follows the file's length
    #[arg(short, long, value_name = "SIZE", value_parser = size)]
    pub block_size: Option<u64>,
    /// Write the cascade files into this directory, instead of beside the data
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "output")]
    pub directory: Option<PathBuf>,
    /// Write the cascade file here (for one FILE only)
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Replace a cascade file that exists
    #[arg(short, long)]
    pub force: bool,
    /// Data files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// `cascade info`
#[derive(Debug, Args)]
pub struct Info {
    /// One JSON object per cascade file
    #[arg(long)]
    pub json: bool,
    /// Cascade files
    #[arg(required = true, value_name = "CASCADE")]
    pub files: Vec<PathBuf>,
}

/// `cascade verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Look for the data in this directory, instead of beside the cascade files
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "data")]
    pub directory: Option<PathBuf>,
    /// The data file (for one CASCADE only)
    #[arg(short = 'o', long, value_name = "DATA")]
    pub data: Option<PathBuf>,
    /// One JSON object per data file
    #[arg(long)]
    pub json: bool,
    /// Say which blocks are missing or wrong
    #[arg(short, long)]
    pub verbose: bool,
    /// Cascade files
    #[arg(required = true, value_name = "CASCADE")]
    pub files: Vec<PathBuf>,
}

/// `cascade tracker`
#[derive(Debug, Args)]
pub struct Tracker {
    /// Where to listen [default: 8888, on every address]
    #[arg(short, long, value_name = "[ADDR:]PORT")]
    pub listen: Vec<ListenAddress>,
    /// Read port, hashes and good peers from this JSON file
    #[arg(short, long, value_name = "CONFIG")]
    pub config: Option<PathBuf>,
    /// Track any hash, not only those that are named
    #[arg(long)]
    pub open: bool,
    /// Forget a peer this long after it was last seen
    #[arg(long, value_name = "SECONDS", value_parser = duration, default_value = "1800")]
    pub ttl: Duration,
    /// Room for so many peers, over all hashes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_777_216), default_value_t = 65_536)]
    pub max_peers: u32,
    /// How clients are served.
    #[command(flatten)]
    pub server: ServerOptions,
    /// What they are granted.
    #[command(flatten)]
    pub limits: LimitOptions,
    /// Keep the registered peers in this file over a restart
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// What is left to a process that strangers have taken over.
    #[command(flatten)]
    pub confine: ConfineOptions,
    /// Log every connection
    #[arg(short, long)]
    pub verbose: bool,
    /// Cascade files or hashes to track
    #[arg(value_name = "CASCADE|HASH", value_hint = ValueHint::FilePath, value_parser = target_parser())]
    pub targets: Vec<Target>,
}

/// `cascade list`
#[derive(Debug, Args)]
pub struct List {
    /// The tracker [env: CASCADE_TRACKER]
    #[arg(short, long, value_name = "HOST:PORT")]
    pub tracker: Option<HostPort>,
    /// The file
    #[arg(value_name = "CASCADE|HASH", value_hint = ValueHint::FilePath, value_parser = target_parser())]
    pub target: Target,
}

/// Options that `get` and `peer` share: where blocks come from.
#[derive(Debug, Default, Args)]
pub struct Sources {
    /// A tracker to ask for peers, and to subscribe to [env: CASCADE_TRACKER]
    #[arg(short, long, value_name = "HOST:PORT")]
    pub tracker: Vec<HostPort>,
    /// A peer to download from
    #[arg(short, long, value_name = "HOST:PORT")]
    pub peer: Vec<HostPort>,
    /// Worker processes in all [default: the number of cores, at least 4; one per peer if that is more]
    #[arg(short, long, value_name = "WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Overwrite a data file of which no block belongs to the cascade file
    #[arg(short, long)]
    pub force: bool,
    /// Send at most so many bytes per second (500KiB, 2MiB), over all connections
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub upload_limit: Option<u64>,
    /// Receive at most so many bytes per second, over all connections
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub download_limit: Option<u64>,
    /// Serve so many connections at full speed at once; others wait for their turn
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

/// `cascade get`
#[derive(Debug, Args)]
pub struct Get {
    /// Where blocks come from.
    #[command(flatten)]
    pub sources: Sources,
    /// What is told.
    #[command(flatten)]
    pub reporting: Reporting,
    /// Put the data into this directory, instead of beside the cascade files
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "output")]
    pub directory: Option<PathBuf>,
    /// The data file (for one CASCADE only)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
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
    /// What is left to a process that strangers have taken over.
    #[command(flatten)]
    pub confine: ConfineOptions,
    /// The data lie in this directory, instead of beside the cascade files
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
    /// Serve and download every *.cascade in DIR as well
    #[arg(long, requires = "directory")]
    pub watch_dir: bool,
    /// Cascade files; or links, whose cascade files are fetched first
    #[arg(required_unless_present = "watch_dir", value_name = "CASCADE|LINK", value_parser = wanted_parser())]
    pub files: Vec<Wanted>,
}

/// `cascade share`
#[derive(Debug, Args)]
pub struct Share {
    /// Subscribe to this tracker, instead of running one
    #[arg(
        short,
        long,
        value_name = "HOST:PORT",
        conflicts_with = "tracker_listen"
    )]
    pub tracker: Option<HostPort>,
    /// Where the tracker listens [default: 8888, or a free port, on every address]
    #[arg(long, value_name = "[ADDR:]PORT")]
    pub tracker_listen: Vec<ListenAddress>,
    /// Where the peer listens [default: a free port, on every address]
    #[arg(short, long, value_name = "[ADDR:]PORT")]
    pub listen: Vec<ListenAddress>,
    /// End when so many addresses have all of each file
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub copies: Option<u32>,
    /// The address under which others reach this host, where it is not that of its interface
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub advertise: Option<Advertised>,
    /// Send at most so many bytes per second (500KiB, 2MiB), over all connections
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub upload_limit: Option<u64>,
    /// Serve so many connections at full speed at once; others wait for their turn
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub upload_slots: Option<u16>,
    /// Log every connection
    #[arg(short, long)]
    pub verbose: bool,
    /// Data files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// `cascade echo`
#[derive(Debug, Args)]
pub struct Echo {
    /// Which side.
    #[command(subcommand)]
    pub side: EchoSide,
}

/// The two sides of an echo.
#[derive(Debug, Subcommand)]
pub enum EchoSide {
    /// Send every line back
    Serve(EchoServe),
    /// Send each line of standard input, print what comes back
    Client(EchoClient),
}

/// `cascade echo serve`
#[derive(Debug, Args)]
pub struct EchoServe {
    /// Where to listen [default: a free port, on every address]
    #[arg(short, long, value_name = "[ADDR:]PORT")]
    pub listen: Vec<ListenAddress>,
    /// How clients are served.
    #[command(flatten)]
    pub server: ServerOptions,
    /// What they are granted.
    #[command(flatten)]
    pub limits: LimitOptions,
    /// What is left to a process that strangers have taken over.
    #[command(flatten)]
    pub confine: ConfineOptions,
    /// Log the names of clients as well; implies --verbose
    #[arg(short, long)]
    pub resolve: bool,
    /// Log every connection, and what it sends
    #[arg(short, long)]
    pub verbose: bool,
}

/// `cascade echo client`
#[derive(Debug, Args)]
pub struct EchoClient {
    /// The server: a name or an address
    #[arg(value_name = "HOST")]
    pub host: String,
    /// Its port: a number or the name of a service
    #[arg(value_name = "PORT")]
    pub port: Port,
}

/// `cascade compare`
#[derive(Debug, Args)]
pub struct Compare {
    /// What the servers offer: lines echoed, blocks of a file, or lists of peers
    #[arg(long, value_name = "SERVICE", value_enum, default_value_t = ServiceKind::Echo)]
    pub service: ServiceKind,
    /// Compare these models, separated by commas [default: all]
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', num_args = 1, hide_default_value = true, default_values_t = Model::ALL)]
    pub models: Vec<Model>,
    /// So many clients at once, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', num_args = 1, default_value = "1,16,256", value_parser = clap::value_parser!(u16).range(1..=4000))]
    pub clients: Vec<u16>,
    /// Measure each cell for this long, over all rounds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    pub duration: Duration,
    /// Measure in so many turns, each in another order
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000), default_value_t = 5)]
    pub rounds: u16,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with tables and plots to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// `cascade compare-part`
#[derive(Debug, Args)]
pub struct ComparePart {
    /// The process that compares.
    pub parent: i32,
    /// What the part does.
    pub role: Role,
    /// Of the server.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// `cascade help`
#[derive(Debug, Args)]
pub struct Help {
    /// A command, or a page of the manual [default: a summary]
    #[arg(value_name = "TOPIC", hide_possible_values = true)]
    pub topic: Option<String>,
}

/// `cascade completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// A shell that completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// With bash-completion
    Bash,
    /// From 3.0
    Fish,
    /// With compinit
    Zsh,
}

/// What a process of a comparison does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Serves, as the command in its arguments.
    Server,
    /// Plays the clients.
    Load,
    /// Measures what a flow of control costs.
    Cost,
    /// Serves, and crashes on request.
    Crashable,
    /// Serves lists from a registry that it has filled.
    Registry,
}

/// A file on the network: by its hash, or by its cascade file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// 64 hexadecimal digits.
    Hash(CascadeHash),
    /// The path of a cascade file.
    CascadeFile(PathBuf),
}

/// A path need not be text.
fn target_parser() -> impl TypedValueParser<Value = Target> {
    OsStringValueParser::new().map(target)
}

fn target(text: OsString) -> Target {
    let hash = text.to_str().and_then(|text| text.parse().ok());
    hash.map_or_else(|| Target::CascadeFile(text.into()), Target::Hash)
}

/// A file to download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// By the path of its cascade file.
    CascadeFile(PathBuf),
    /// By a link, which has all that is needed.
    Link(Link),
    /// By its hash alone.
    Hash(CascadeHash),
}

fn wanted_parser() -> impl TypedValueParser<Value = Wanted> {
    OsStringValueParser::new().try_map(wanted)
}

/// What begins like a link is one, or a mistake.
fn wanted(text: OsString) -> Result<Wanted, LinkError> {
    match text.to_str() {
        Some(link) if link.starts_with(SCHEME) => link.parse().map(Wanted::Link),
        _ => Ok(match target(text) {
            Target::Hash(hash) => Wanted::Hash(hash),
            Target::CascadeFile(path) => Wanted::CascadeFile(path),
        }),
    }
}

fn pool_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size @ 1..=1024) => Ok(size),
        _ => Err("a pool has 1 to 1024 members".into()),
    }
}

fn size(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(0)) => Err("a block has at least one byte".into()),
        Ok(ByteSize(size)) => Ok(size),
        Err(_) => Err("a size is a number of bytes, or has a unit: 65536, 64KiB, 1MiB".into()),
    }
}

/// Seconds with a fraction, for measurements.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) => Err("at least 0.01 and at most 86400".into()),
        Err(_) => Err("a number of seconds, such as 2 or 0.5".into()),
    }
}

fn rate(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(0)) => Err("a rate is at least one byte per second".into()),
        Ok(ByteSize(rate)) => Ok(rate),
        Err(_) => Err("a rate is bytes per second, or has a unit: 500000, 500KiB, 2MiB".into()),
    }
}

/// How long somebody is waited for: not for ever, but for a moment.
fn patience(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time < Duration::from_millis(1) => Err("at least a millisecond".into()),
        time => Ok(time),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    // Ten years: far beyond any use, and small enough that no sum with a clock overflows.
    const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
    let parsed = match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text),
    };
    match parsed {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err("at most ten years".into()),
        Err(_) => Err("a time is a number of seconds, or has a unit: 90, 90s, 5m, 2h".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_take_units_and_plain_bytes() {
        assert_eq!(size("65536"), Ok(65536));
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        for text in ["0", "", "-1", "1XiB", "99999999999999999999"] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn rates_take_units_and_plain_bytes() {
        assert_eq!(rate("500000"), Ok(500_000));
        assert_eq!(rate("2MiB"), Ok(2 << 20));
        for text in ["0", "", "-1", "fast", "1MiB/s"] {
            assert!(rate(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_take_units_and_plain_seconds() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for text in ["", "-1", "soon", "18446744073709551615"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn measurements_take_fractions_of_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        for text in ["", "0", "-1", "soon", "nan", "inf", "1e9"] {
            assert!(seconds(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let typed = [
            "cascade",
            "compare",
            "--models",
            "event,process",
            "--clients",
            "1,4",
        ];
        let Ok(Cli {
            command: Command::Compare(compare),
        }) = Cli::try_parse_from(typed)
        else {
            panic!("it can be understood");
        };
        assert_eq!(compare.models, [Model::Event, Model::Process]);
        assert_eq!(compare.clients, [1, 4]);
        for list in ["0", "4001", "1,,2", "x"] {
            assert!(Cli::try_parse_from(["cascade", "compare", "--clients", list]).is_err());
        }
    }

    #[test]
    fn sixty_four_hex_digits_are_a_hash_unless_a_directory_stands_before_them() {
        let digits = "ab".repeat(32);
        assert!(matches!(target(digits.clone().into()), Target::Hash(_)));
        assert!(matches!(
            target(format!("./{digits}").into()),
            Target::CascadeFile(_)
        ));
        assert!(matches!(target("x.cascade".into()), Target::CascadeFile(_)));
    }

    #[test]
    fn what_begins_like_a_link_is_one_or_a_mistake() {
        let link = format!("cascade://host:80/{}/x", "ab".repeat(32));
        assert!(matches!(wanted(link.into()), Ok(Wanted::Link(_))));
        assert!(wanted("cascade://x".into()).is_err());
        let file = wanted("./cascade://x".into());
        assert!(matches!(file, Ok(Wanted::CascadeFile(_))));
        let hash = wanted("ab".repeat(32).into());
        assert!(matches!(hash, Ok(Wanted::Hash(_))));
    }
}
