//! Thin wrappers around system calls: the only unsafe code of the program.

#![allow(unsafe_code)]

pub mod alarm;
pub mod cycles;
pub mod epoll;
pub mod exit;
pub mod fork;
pub mod letters;
pub mod memory;
pub mod passing;
pub mod pipe;
pub mod poll;
pub mod shared;
pub mod signals;
pub mod socket;
