//! The tracker: who serves what.
pub mod client;
