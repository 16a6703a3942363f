//! The tracker: who serves what. PROTOCOL §2.
//!
//! | module | what it is |
//! |---|---|
//! | [`registry`] | the registered peers: the owner's side, which writes |
//! | [`view`] | the same from the side of everybody else, who reads without a lock |
//! | [`roll`], [`figures`] | who serves what, for people; how full it is |
//! | [`shares`] | how much of the registry one file and one source may take |
//! | [`policy`] | whom the operator lets in |
//! | [`config`] | the configuration file |
//! | [`state`] | the file in which the registry survives a restart |
//! | [`lock`] | who may write that file |
//! | [`client`] | how a peer asks a tracker |
//!
//! The registry is pure: time and randomness are arguments.

pub mod client;
pub mod config;
mod crowds;
mod entries;
pub mod figures;
mod free_list;
mod index;
pub mod lock;
pub mod policy;
mod record;
pub mod registry;
pub mod roll;
mod sequence;
pub mod shares;
pub mod state;
mod tables;
pub mod view;
