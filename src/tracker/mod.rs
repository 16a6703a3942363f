//! The tracker: who serves what. PROTOCOL §2.
//!
//! | module | what it is |
//! |---|---|
//! | [`registry`] | the registered peers: the owner's side, which writes |
//! | [`view`] | the same from the side of everybody else, who reads without a lock |
//! | [`shares`] | how much of the registry one file and one source may take |
//!
//! The registry is pure: time and randomness are arguments.

mod index;
mod record;
pub mod registry;
mod sequence;
pub mod shares;
mod tables;
pub mod view;
