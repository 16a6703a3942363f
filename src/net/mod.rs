//! Addresses as a person writes them, and sockets made of them.

pub mod address;
pub mod admission;
pub mod bucket;
pub mod connect;
pub mod control;
pub mod link;
pub mod listen;
pub mod named;
pub mod reach;
pub mod resolve;
pub mod rio;
pub mod source;
