//! Downloading one file: a pure scheduler, worker processes that talk to peers, and the loop between them.
//!
//! | module | what it is |
//! |---|---|
//! | [`plan`] | the scheduler: which block is asked of which peer ([`blocks`], [`knowledge`]) |
//! | [`worker`] | a process that fetches blocks from one peer, and verifies and writes them |
//! | [`response`], [`landing`] | what comes in of an answer, and where it goes |
//! | [`habits`] | what a worker learns of how its peer treats connections |
//! | [`report`] | what workers tell the downloader ([`reason`]: why they failed) |
//! | [`whole`] | the process that hashes the whole file behind the growing prefix |
//! | [`downloader`] | the loop: orders to workers, reports to the plan |
//! | [`metadata`] | a process that fetches the cascade file from one peer, by its hash ([`extension`]) |

pub mod blocks;
pub mod downloader;
pub mod extension;
pub mod habits;
pub mod knowledge;
pub mod landing;
pub mod metadata;
pub mod plan;
pub mod progress;
pub mod reason;
pub mod report;
pub mod response;
pub mod whole;
pub mod worker;
