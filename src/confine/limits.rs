//! Resource limits: setrlimit(2).

use std::fs;
use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{SFlag, fstat};

use super::Role;

/// The most descriptors of a process with a few files and one connection.
const FEW_FILES: u64 = 64;
/// How much the memory of a single-threaded process may grow, beyond doubling: a registry that is rebuilt exists twice
/// for a moment.
const MEMORY: u64 = 1 << 30;
/// The same for a process with threads, each of which has a stack and may have a heap.
const MEMORY_OF_THREADS: u64 = 64 << 30;
/// The same for a download.
const MEMORY_OF_DOWNLOADS: u64 = 8 << 30;
/// The same for a process that receives a registry, and later its successor: twice 200 bytes for each of 16 million
/// peers.
const MEMORY_OF_REGISTRIES: u64 = 8 << 30;

/// Sets the limits of the role.
///
/// # Errors
/// As setrlimit(2).
pub fn apply(role: Role<'_>) -> io::Result<()> {
    lower(Resource::RLIMIT_CORE, 0)?;
    match role {
        // As many as it has clients.
        Role::Server { .. } => lower(
            Resource::RLIMIT_NOFILE,
            getrlimit(Resource::RLIMIT_NOFILE)?.0,
        )?,
        Role::Downloader { .. }
        | Role::Outside { .. }
        | Role::Reader
        | Role::Reporter { .. }
        | Role::Surveyor => {}
        Role::Announcer { .. }
        | Role::Asker { .. }
        | Role::Verifier { .. }
        | Role::Worker { .. }
        | Role::Hasher => {
            lower(Resource::RLIMIT_NOFILE, FEW_FILES)?;
        }
    }
    match role {
        Role::Server { threads: true, .. } | Role::Verifier { .. } => grow_by(MEMORY_OF_THREADS)?,
        // Its plan is as large as its file has blocks. Its workers, which cannot look at their own size, inherit this.
        Role::Downloader { .. } => grow_by(MEMORY_OF_DOWNLOADS)?,
        Role::Reporter { .. } => grow_by(MEMORY_OF_REGISTRIES)?,
        _ => grow_by(MEMORY)?,
    }
    let writes = matches!(
        role,
        Role::Downloader { .. }
            | Role::Worker { .. }
            | Role::Outside { .. }
            | Role::Verifier { writes: true }
    );
    // The system takes shared memory for a file. What logs to a file must be able to.
    let writes = writes || matches!(role, Role::Server { tables: true, .. } | Role::Reader);
    if !writes && !logs_to_a_file() {
        lower(Resource::RLIMIT_FSIZE, 0)?;
    }
    Ok(())
}

/// Sets both soft and hard limit, unless it is lower already.
fn lower(resource: Resource, limit: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    let limit = limit.min(hard);
    Ok(setrlimit(resource, limit, limit)?)
}

/// Limits the growth of memory from now on to this many bytes.
fn grow_by(bytes: u64) -> io::Result<()> {
    // Its first number is the size of the address space in pages.
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    match pages {
        Some(pages) => {
            let now = pages.saturating_mul(page_size());
            let limit = now.saturating_mul(2).saturating_add(bytes);
            lower(Resource::RLIMIT_AS, limit)
        }
        None => Ok(()),
    }
}

fn page_size() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok().flatten().map_or(4096, |size| size as u64)
}

/// Whether standard error is a regular file.
fn logs_to_a_file() -> bool {
    fstat(io::stderr()).is_ok_and(|status| {
        SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
    })
}
