//! Cascade: peer-to-peer file sharing, with a process for each connection.
//!
//! # A tour
//!
//! Begin with `main.rs`, which calls [`commands::main`]. Every command is a file in [`commands`] that shows the data
//! flow of its role, one step per line.
//!
//! The formats come first: [`hash`] has the three kinds of hashes, [`cascade_file`] the file that describes a shared
//! file, [`wire`] the messages of the protocols. They are pure, and so are the state machines that speak them: a
//! [`service::Session`] turns received bytes into bytes and file ranges to be sent. [`service::blocks`] serves blocks,
//! [`service::tracker`] tells which peers have them.
//!
//! [`server`] drives sessions: it accepts connections, forks a child for each, and reaps ([`sys::child`]). What must
//! outlive a child is sent to the parent as a record ([`sys::record`]) over a socket or pipe; what children must see
//! change lies in shared memory ([`sys::shared`]): which blocks are present ([`store::bitmap`]), which peers are
//! registered ([`tracker::registry`]).
//!
//! [`download`] is the other half: a pure scheduler ([`download::plan`]) gives orders to worker processes, which fetch
//! blocks, verify and write them, and report back. [`node`] combines both for `get` and `peer`: a supervisor with a
//! process for each role, kept up to date through [`node::handover`]. [`share`] runs a tracker and such a node, and
//! counts the copies. [`compare`] benchmarks the server models against each other. [`store`] handles data on disk:
//! created, verified, written, and never lost.
//!
//! [`cli`] is the command line, [`config`] the same in a file; [`exit`], [`output`], [`events`] and [`logging`] are the
//! program's interface to the shell. [`status`] reports how a server is doing. [`daemon`] is how tracker, peer and echo
//! server cooperate with service managers and inetd, and [`confine`] how processes that face strangers give up their
//! privileges. [`sys`] has the only unsafe code, [`net`] addresses and sockets; [`text`] makes untrusted text safe to
//! display. [`faults`] injects failures for the tests, and is empty in release builds.
//!
//! Dependencies point one way: commands → share → node → download, server, tracker → service → wire → hash.
//!
//! # Examples
//!
//! Pure modules can be tried without a network: [`cascade_file`], [`wire`], [`service`], [`download::plan`] and
//! [`tracker::registry`] begin with an example. The one in [`server`] serves a client. The manual has examples of the
//! program itself.
//!
//! # Hazards
//!
//! Known pitfalls of such servers are documented where they are avoided: [`sys::fork`], [`sys::signals`],
//! [`sys::pipe`], [`server::process`], [`store::data_file`].

pub mod cascade_file;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod config;
pub mod confine;
pub mod daemon;
pub mod display;
pub mod download;
pub mod events;
pub mod exit;
pub mod faults;
pub mod hash;
pub mod layout;
pub mod logging;
pub mod manual;
pub mod net;
pub mod node;
pub mod output;
pub mod server;
pub mod service;
pub mod share;
pub mod status;
pub mod store;
pub mod sys;
pub mod text;
pub mod tracker;
pub mod wire;
