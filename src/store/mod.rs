//! The data file on disk: which of its blocks are present, how they are verified, read and written.

pub mod atomic;
pub mod bitmap;
pub mod create;
pub mod data_file;
pub mod stamp;
pub mod verify;
