//! Thin wrappers around system calls: the only unsafe code of the program.

#![allow(unsafe_code)]

pub mod alarm;
#[cfg(feature = "faults")]
pub mod attack;
mod call;
pub mod child;
pub mod cycles;
pub mod deadline;
pub mod epoll;
pub mod exec;
pub mod exit;
pub mod fork;
pub mod inherited;
pub mod init;
pub mod landlock;
pub mod letters;
pub mod memory;
pub mod needs;
pub mod passed;
pub mod passing;
pub mod pipe;
pub mod poll;
pub mod record;
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
mod rseq;
pub mod seccomp;
pub mod shared;
pub mod signals;
pub mod socket;
pub mod support;
pub mod uninherited;
