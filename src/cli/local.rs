//! Commands that work on local files: `create`, `info`, `verify`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::values::size;

/// `cascade create`
#[derive(Debug, Args)]
pub struct Create {
    /// Block size: bytes, or with a unit (64KiB, 1MiB); by default it follows the file's length
    #[arg(short, long, value_name = "SIZE", value_parser = size)]
    pub block_size: Option<u64>,
    /// Write the cascade files into this directory, instead of beside the data
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "output")]
    pub directory: Option<PathBuf>,
    /// Write the cascade file here (for one FILE only)
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Replace a cascade file that exists
    #[arg(short, long)]
    pub force: bool,
    /// Data files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// `cascade info`
#[derive(Debug, Args)]
pub struct Info {
    /// One JSON object per cascade file
    #[arg(long)]
    pub json: bool,
    /// Cascade files
    #[arg(required = true, value_name = "CASCADE")]
    pub files: Vec<PathBuf>,
}

/// `cascade verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Look for the data in this directory, instead of beside the cascade files
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "data")]
    pub directory: Option<PathBuf>,
    /// The data file (for one CASCADE only)
    #[arg(short = 'o', long, value_name = "DATA")]
    pub data: Option<PathBuf>,
    /// One JSON object per data file
    #[arg(long)]
    pub json: bool,
    /// Say which blocks are missing or wrong
    #[arg(short, long)]
    pub verbose: bool,
    /// Cascade files
    #[arg(required = true, value_name = "CASCADE")]
    pub files: Vec<PathBuf>,
}
