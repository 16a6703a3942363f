//! A peer that serves one connection, which somebody else accepted. It downloads nothing and tells no tracker: for that
//! one would have to be there before it is asked. Each block is verified when it is asked for.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};

use crate::cascade_file::CascadeFile;
use crate::commands::{Status, UsageError};
use crate::daemon::inetd;
use crate::hash::CascadeHash;
use crate::logging::complain;
use crate::node::{FileSpec, Settings};
use crate::server::Limits;
use crate::service::blocks::{BlocksService, ServedFile, on_demand};
use crate::store::bitmap::Bitmap;
use crate::store::names::part_path;
use crate::store::open_data;
use crate::store::stamp::{self, Stamp};
use crate::text::escape_path;

/// Serves the connection.
///
/// # Errors
/// Where no file can be served, or the connection is none.
pub fn serve(settings: &Settings) -> anyhow::Result<Status> {
    if !settings.sources.peer.is_empty() {
        return Err(UsageError("--inetd only serves: it downloads from no --peer").into());
    }
    let mut files = Vec::new();
    for spec in settings.files.all()? {
        match open(&spec) {
            Ok(file) => files.push(file),
            Err(error) => complain(&error),
        }
    }
    ensure!(!files.is_empty(), "cannot serve any of the files");
    let (served, cascades): (Vec<ServedFile>, Vec<CascadeFile>) = files.into_iter().unzip();
    let blocks = BlocksService::new(served).verifying(on_demand::Hashes::new(cascades));
    let limits: &Limits = &settings.limits;
    inetd::serve(&blocks, limits, &settings.confinement, |_, _| Ok(()))
}

/// Opens a file to be read, as far as it is there.
fn open(spec: &FileSpec) -> anyhow::Result<(ServedFile, CascadeFile)> {
    let name = escape_path(&spec.cascade);
    let reading = || format!("cannot read {name}");
    let meta = open_data(&spec.cascade).with_context(reading)?;
    let cascade = CascadeFile::read_open(&meta).with_context(reading)?;
    ensure!(
        spec.hash.is_none_or(|hash| hash == cascade.hash()),
        "cannot serve {name}: it is another file than its link says"
    );
    let (data, is_whole) = open_either(&spec.data, &cascade.hash())
        .with_context(|| format!("cannot read {}", escape_path(&spec.data)))?;
    let (stamp, present) = (Stamp::new()?, Bitmap::new(cascade.geometry().blocks())?);
    // One that grows is somebody's download, who changes no block that is right.
    if is_whole {
        stamp.freeze(stamp::modified(&data)?);
    }
    let served = ServedFile {
        id: 0,
        hash: cascade.hash(),
        geometry: cascade.geometry(),
        data: Arc::new(data),
        meta: (Arc::new(meta), cascade.encode().len() as u64),
        present: Arc::new(present),
        stamp: Arc::new(stamp),
        onlookers: None,
    };
    Ok((served, cascade))
}

/// The data file, or what is there of it while it is downloaded. Answers whether it has its name.
fn open_either(path: &Path, hash: &CascadeHash) -> io::Result<(std::fs::File, bool)> {
    match open_data(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            open_data(&part_path(path, hash)).map(|file| (file, false))
        }
        file => file.map(|file| (file, true)),
    }
}
