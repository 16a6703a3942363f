//! Cascade: sharing files in a peer-to-peer network, with a process for each connection.
//!
//! # A tour
//!
//! Begin with `main.rs`, which calls [`commands::main`]; every command is a file in [`commands`] that shows the data
//! flow of its role a step a line.
//!
//! The formats come first: [`hash`] has the three kinds of hash, [`cascade_file`] the file that describes a file,
//! [`wire`] the messages of the network. They are pure, and so are the state machines that speak them: a
//! [`service::Session`] turns bytes that arrived into bytes (and ranges of files) that are to be sent. [`service::blocks`]
//! serves blocks, [`service::tracker`] answers who has them.
//!
//! [`server`] drives sessions: it accepts, forks a child per connection, and reaps. What a child learns that must
//! outlive it goes to the parent as a record through a pipe ([`sys::pipe`]); what children must see change lies in
//! shared memory ([`sys::shared`]): the blocks that are present ([`store::bitmap`]), the peers that are registered
//! ([`tracker::registry`]).
//!
//! [`download`] is the other half: a pure scheduler ([`download::plan`]) gives orders, worker processes fetch blocks,
//! verify and write them, and report. [`node`] puts it all together for `get` and `peer`: a supervisor with a process
//! for each role, which [`node::handover`] keeps informed. [`share`] runs a tracker and such a node, and counts the
//! copies. [`compare`] measures the server models against each other. [`store`] is the data on disk: created, verified,
//! written, and never lost.
//!
//! [`cli`] is what can be typed, [`config`] the same in a file; [`exit`], [`output`], [`events`] and [`logging`] are what
//! a shell sees of the program. [`daemon`] is how tracker, peer and echo server get on with what runs them.
//! [`sys`] has the only unsafe code, [`net`] the addresses, [`text`] makes what strangers say fit to be shown.
//! [`faults`] is for the tests, and empty in what is shipped.
//!
//! Dependencies point one way: commands → share → node → download, server, tracker → service → wire → hash.
//!
//! # Examples
//!
//! What is pure can be tried without a network. [`cascade_file`], [`wire`], [`service`], [`download::plan`] and
//! [`tracker::registry`] begin with an example; the one of [`server`] serves a client. The program itself has its
//! examples in the manual.
//!
//! # Hazards
//!
//! What went wrong elsewhere and must not here is written where it is prevented: [`sys::fork`], [`sys::signals`],
//! [`sys::pipe`], [`server::process`], [`store::data_file`].

pub mod cascade_file;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod config;
pub mod confine;
pub mod daemon;
pub mod download;
pub mod events;
pub mod exit;
pub mod faults;
pub mod hash;
pub mod layout;
pub mod logging;
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
