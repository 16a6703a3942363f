//! Options that servers share, and the servers: `tracker`, `echo`.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Args, Subcommand, ValueHint};

use super::daemon::{ConfigOptions, DaemonOptions, StatusOptions};
use super::values::{Target, duration, http_address, patience, pool_size, target_parser};
use super::{SERVICE, SERVING};
use crate::confine::ConfineOptions;
use crate::net::address::{ListenAddress, Port};
use crate::server::{Model, limits};

/// Options that all servers share: how they have several clients at once.
#[derive(Debug, Clone, Copy, Args)]
pub struct ServerOptions {
    /// How several clients are served at once
    #[arg(help_heading = SERVING, long, value_enum, default_value_t, value_name = "MODEL")]
    pub model: Model,
    /// Members of the pool of prethread and prefork
    #[arg(help_heading = SERVING, long, value_name = "N", value_parser = pool_size, default_value_t = limits::DEFAULT_POOL)]
    pub pool: usize,
}

/// Options that all servers share: what they grant their clients.
#[derive(Debug, Clone, Copy, Args)]
pub struct LimitOptions {
    /// Serve at most N connections at once; others wait [default: what the system allows, at most 4096]
    #[arg(help_heading = SERVING, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub max_connections: Option<u32>,
    /// Serve at most N connections of one address at once; others are closed [default: 64]
    #[arg(help_heading = SERVING, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub max_per_address: Option<u32>,
    /// Close a connection that is silent for this long between requests [default: 5s]
    #[arg(help_heading = SERVING, long, value_name = "TIME", value_parser = patience)]
    pub idle_timeout: Option<Duration>,
    /// Close a connection on which a whole request takes longer [default: 10s]
    #[arg(help_heading = SERVING, long, value_name = "TIME", value_parser = patience)]
    pub request_timeout: Option<Duration>,
    /// Close a connection whose client takes no byte for this long [default: 30s]
    #[arg(help_heading = SERVING, long, value_name = "TIME", value_parser = patience)]
    pub send_timeout: Option<Duration>,
    /// Close a connection after this long in any case [default: 1h]
    #[arg(help_heading = SERVING, long, value_name = "TIME", value_parser = patience)]
    pub max_lifetime: Option<Duration>,
    /// Let transfers go on for this long after a signal to stop [default: 10s]
    #[arg(help_heading = SERVING, long, value_name = "TIME", value_parser = duration)]
    pub grace: Option<Duration>,
    /// Queue at most N connections that are not accepted yet [default: 1024]
    #[arg(help_heading = SERVING, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub backlog: Option<u16>,
}

/// `cascade tracker`
#[derive(Debug, Args)]
pub struct Tracker {
    /// Where to listen [default: 8888, on every address]
    #[arg(short, long, value_name = "[ADDR:]PORT")]
    pub listen: Vec<ListenAddress>,
    /// What a file says of it.
    #[command(flatten)]
    pub config: ConfigOptions,
    /// Track any hash, not only those that are named
    #[arg(long)]
    pub open: bool,
    /// An address whose peers are vouched for: they come first, and are registered by themselves only
    #[arg(long, alias = "good-ips", value_name = "ADDR")]
    pub good_ip: Vec<Ipv4Addr>,
    /// Refuse private addresses
    #[arg(long)]
    pub ban_private: bool,
    /// Forget a peer this long after it was last seen
    #[arg(long, value_name = "SECONDS", value_parser = duration, default_value = "1800")]
    pub ttl: Duration,
    /// Register at most N peers, over all hashes
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
    /// How it gets on with what runs it.
    #[command(flatten)]
    pub daemon: DaemonOptions,
    /// Who is told how it is.
    #[command(flatten)]
    pub status: StatusOptions,
    /// Serve a status page and /metrics over HTTP at this address
    #[arg(help_heading = SERVICE, long, value_name = "ADDR:PORT", value_parser = http_address, conflicts_with = "inetd")]
    pub http: Vec<ListenAddress>,
    /// Serve these pages under this host name as well
    #[arg(help_heading = SERVICE, long, value_name = "NAME", conflicts_with = "inetd")]
    pub http_host: Vec<String>,
    /// Poll at most N peers per second for their progress (for --http and --control); 0: none
    #[arg(help_heading = SERVICE, long, value_name = "N", default_value_t = 10, conflicts_with = "inetd", value_parser = clap::value_parser!(u32).range(..=1000))]
    pub survey: u32,
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
    Serve(Box<EchoServe>),
    /// Send each line of standard input, print what comes back
    Client(EchoClient),
}

/// `cascade echo serve`
#[derive(Debug, Args)]
#[command(
    mut_arg("idle_timeout", of_echo("1h")),
    mut_arg("request_timeout", of_echo("1h")),
    mut_arg("send_timeout", of_echo("1h")),
    mut_arg("max_lifetime", of_echo("24h"))
)]
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
    /// How it gets on with what runs it.
    #[command(flatten)]
    pub daemon: DaemonOptions,
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

/// The same option with another default, in its help: who types has more patience than a program.
fn of_echo(default: &str) -> impl Fn(Arg) -> Arg {
    move |arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let what = help.split(" [default:").next().unwrap_or_default();
        let help = format!("{what} [default: {default}]");
        arg.help(help)
    }
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
