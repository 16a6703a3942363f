//! `cascade compare`: what each server model costs and what it buys, measured on the machine of whoever asks.
//!
//! | module | what it is |
//! |---|---|
//! | [`plan`] | what is measured, and in which order |
//! | [`part`] | the processes of a comparison: this program, executed again |
//! | [`harness`] | a server under test |
//! | [`load`] | the load generator |
//! | [`traffic`] | what its clients say |
//! | [`proc`] | processor time and memory of a server and its descendants |
//! | [`measure`] | a server, a generator, and the figures of both |
//! | [`stats`] | medians and percentiles |
//! | [`cost`] | what a flow of control costs |
//! | [`isolation`], [`crashable`] | what a crash takes with it |
//! | [`registry`] | what a list costs where a tracker knows a million peers |
//! | [`machine`] | where all this runs |
//! | [`claims`] | what the textbook says, judged |
//! | [`cell`], [`report`] | what was found of one model under one load, and everything |
//! | [`units`] | figures as people read them |
//! | [`terminal`], [`html`], [`svg`], [`plots`] | the report for a terminal and as a page |
//!
//! The process that compares has one thread and no part in what it measures: servers, generators and whatever else
//! is measured are parts of their own, one at a time.

pub mod cell;
pub mod claims;
pub mod cost;
pub mod crashable;
pub mod harness;
pub mod html;
pub mod isolation;
pub mod load;
pub mod machine;
pub mod measure;
pub mod part;
pub mod plan;
pub mod plots;
pub mod proc;
pub mod registry;
pub mod report;
#[cfg(test)]
mod sample;
pub mod sandbox;
pub mod stats;
pub mod svg;
pub mod terminal;
pub mod traffic;
pub mod units;
