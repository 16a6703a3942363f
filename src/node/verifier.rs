//! The process that verifies what a file holds already, and first copies what agrees of one that is replaced.

use std::io;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use nix::unistd::Pid;

use super::item::Item;
use crate::cascade_file::CascadeFile;
use crate::confine::{Confinement, Role};
use crate::download::progress::Figure;
use crate::faults;
use crate::logging::complain;
use crate::store::data_file::Origin;
use crate::store::{copy, origin, pieces, stamp, verify};
use crate::sys::fork;
use crate::text::{count, without_errno};

/// What a verifier found. The number is the exit status of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// All of it is right, or what is there belongs to the download.
    Download = 0,
    /// An error, which was said.
    Failed = 1,
    /// Some blocks with content are right, and others hold something else.
    Mixed = 4,
    /// No block with content is right.
    Foreign = 5,
    /// The file was changed meanwhile: the result is worth nothing.
    Changed = 6,
}

impl Finding {
    /// The finding that an exit status means; nothing for that of a process that did not get that far.
    pub fn from_exit_status(status: i32) -> Option<Self> {
        [
            Self::Download,
            Self::Failed,
            Self::Mixed,
            Self::Foreign,
            Self::Changed,
        ]
        .into_iter()
        .find(|finding| *finding as i32 == status)
    }

    /// Where the file comes from.
    pub fn origin(self) -> Origin {
        match self {
            Self::Download => Origin::Download,
            Self::Mixed => Origin::Mixed,
            Self::Failed | Self::Foreign | Self::Changed => Origin::Foreign,
        }
    }
}

impl From<Origin> for Finding {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Download => Self::Download,
            Origin::Mixed => Self::Mixed,
            Origin::Foreign => Self::Foreign,
        }
    }
}

/// Verifies what is there of a file, on all cores. It has threads, and forks nothing.
pub fn start(item: &Item, confinement: &Confinement) -> io::Result<Pid> {
    // That is found in files, which the process will not see.
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let copied = item.data.to_copy();
    let mut keep = vec![item.meta.as_fd(), item.data.reading().as_fd()];
    keep.extend(copied.map(AsFd::as_fd));
    keep.extend(
        item.data
            .writing()
            .filter(|_| copied.is_some())
            .map(AsFd::as_fd),
    );
    fork::spawn_leaf(&keep, || {
        let found = item.load().and_then(|cascade| {
            let writes = copied.is_some();
            confinement.enter(Role::Verifier { writes })?;
            copy_agreeing_blocks(item, &cascade)?;
            verify_item(item, &cascade, threads)
        });
        found.unwrap_or_else(|error| {
            complain(&error);
            Finding::Failed
        }) as u8
    })
}

/// Copies the blocks that were found right in the file that is to be replaced.
fn copy_agreeing_blocks(item: &Item, cascade: &CascadeFile) -> anyhow::Result<()> {
    let (Some(from), Some(to)) = (item.data.to_copy(), item.data.writing()) else {
        return Ok(());
    };
    copy::copy_blocks(from, to, cascade.geometry(), &item.present).with_context(|| {
        format!(
            "cannot copy what agrees of {}; --in-place mends it where it lies, and needs no second copy",
            item.name
        )
    })?;
    item.present.clear_all();
    Ok(())
}

/// The blocks that cannot be read: the first few are named, and the others counted.
#[derive(Default)]
struct Damage {
    blocks: AtomicU32,
}

impl Damage {
    const NAMED: u32 = 3;

    fn tell(&self, name: &str, block: u32, error: &io::Error) {
        if self.blocks.fetch_add(1, Ordering::Relaxed) < Self::NAMED {
            let error = without_errno(&error.to_string());
            log::warn!("cannot read block {block} of {name}: {error}; it counts as missing");
        }
    }

    fn sum_up(&self, name: &str) {
        let more = self
            .blocks
            .load(Ordering::Relaxed)
            .saturating_sub(Self::NAMED);
        if more > 0 {
            let more = count(more as usize, "more block");
            log::warn!("{more} of {name} cannot be read");
        }
    }
}

/// Verifies all blocks; and where all of a file are right that has its final name already, the whole.
fn verify_item(
    item: &Item,
    cascade: &CascadeFile,
    threads: NonZeroUsize,
) -> anyhow::Result<Finding> {
    faults::at("verifier");
    let reading = || format!("cannot read {}", item.name);
    let observer = |bytes: u64| {
        item.progress.add(Figure::Checked, bytes);
        ControlFlow::Continue(())
    };
    let data = item.data.reading();
    let modified = stamp::modified(data).with_context(reading)?;
    let damage = Damage::default();
    let unreadable = |block: u32, error: &io::Error| {
        item.present.unset(block);
        damage.tell(&item.name, block, error);
    };
    let met_errors = verify::verify(
        data,
        cascade,
        &item.present,
        threads,
        &observer,
        &unreadable,
    )
    .with_context(reading)?;
    damage.sum_up(&item.name);
    if item.data.is_named() && item.present.is_full() && !item.left_alone {
        let hash = pieces::hash_file(data, item.geometry.length(), &pieces::unobserved)
            .with_context(reading)?;
        if hash != cascade.file_hash() {
            // Whoever made the cascade file made it of two files, or lied.
            item.present.clear_all();
            anyhow::bail!(
                "cannot use {}: every block is right, but the file as a whole is not what its cascade file says",
                item.name
            );
        }
    }
    let mut finding = match item.present.is_full() {
        true => Finding::Download,
        false => origin::origin(data, item.geometry, &item.present)
            .with_context(reading)?
            .into(),
    };
    // Where some of it could not be read at once, nobody knows for sure what it is.
    if met_errors && finding == Finding::Download {
        finding = Finding::Mixed;
    }
    let length = data.metadata().with_context(reading)?.len();
    item.progress.set(Figure::DataLength, length);
    item.progress.set(Figure::Modified, modified);
    match stamp::modified(data).with_context(reading)? == modified {
        true => Ok(finding),
        false => Ok(Finding::Changed),
    }
}
