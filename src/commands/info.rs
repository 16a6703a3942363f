//! `cascade info`: shows what cascade files say.

use std::path::Path;

use serde::Serialize;

use super::Status;
use super::files::{for_each, read_cascade};
use crate::cascade_file::CascadeFile;
use crate::cli::Info;
use crate::output::{print_bytes, print_json};
use crate::text::escape_path;

/// Prints the header of each cascade file.
///
/// # Errors
/// None; errors with a file are said, and it goes on with the next.
pub fn run(options: &Info) -> anyhow::Result<Status> {
    let mut separator = "";
    Ok(for_each(&options.files, |path| {
        let cascade = read_cascade(path)?;
        if options.json {
            print_json(&Summary::of(path, &cascade))?;
        } else {
            print_bytes(format!("{separator}{}", describe(path, &cascade)).as_bytes())?;
            separator = "\n";
        }
        Ok(Status::Done)
    }))
}

fn describe(path: &Path, cascade: &CascadeFile) -> String {
    let geometry = cascade.geometry();
    format!(
        "file:         {}\n\
         cascade hash: {}\n\
         data hash:    {}\n\
         length:       {}\n\
         block size:   {}\n\
         blocks:       {}\n",
        escape_path(path),
        cascade.hash(),
        cascade.file_hash(),
        geometry.length(),
        geometry.block_size(),
        geometry.blocks(),
    )
}

/// A cascade file's header for programs.
#[derive(Serialize)]
struct Summary {
    file: String,
    hash: String,
    length: u64,
    block_size: u64,
    blocks: u32,
    data_hash: String,
}

impl Summary {
    fn of(path: &Path, cascade: &CascadeFile) -> Self {
        let geometry = cascade.geometry();
        Self {
            file: path.to_string_lossy().into_owned(),
            hash: cascade.hash().to_string(),
            length: geometry.length(),
            block_size: geometry.block_size(),
            blocks: geometry.blocks(),
            data_hash: cascade.file_hash().to_string(),
        }
    }
}
