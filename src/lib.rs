//! Cascade: sharing files in a peer-to-peer network, with a process for each connection.

#![warn(missing_docs)]

pub mod cascade_file;
pub mod cli;
pub mod commands;
pub mod download;
pub mod hash;
pub mod logging;
pub mod net;
pub mod node;
pub mod server;
pub mod service;
pub mod store;
pub mod sys;
pub mod text;
pub mod tracker;
pub mod wire;
