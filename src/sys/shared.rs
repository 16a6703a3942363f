//! Memory that a process shares with its future children: an anonymous `MAP_SHARED` mapping of atomics.
//!
//! A forked child has a snapshot of its parent's ordinary memory; what must stay visible to it lies here. There is one
//! writer, the owner of the data, and there are many readers, and no lock that a dying process could keep. It also
//! keeps fork(2) cheap: page tables are copied for private memory that was touched, but not for shared memory.
//!
//! Where it matters, memory protection enforces who may write ([`Shared::guarded`], [`Shared::protect`]).

use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{
    MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

/// Memory that is never executed (`MFD_NOEXEC_SEAL`): nix has no name for it.
const NOEXEC: MFdFlags = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);

/// Seals the memory against new writable mappings; existing ones stay writable. Linux before 5.1 lacks this seal:
/// there, read-only mappings can be made writable again.
fn seal(fd: &OwnedFd) {
    let seals = SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL;
    let _ = fcntl(fd, FcntlArg::F_ADD_SEALS(seals));
}

/// Types for which all-zero bytes are a valid value, that may change under a reader, and that need no destructor.
///
/// # Safety
/// All three must hold.
pub unsafe trait SharedCell: Sync {}

// SAFETY: an atomic integer of zero bytes is 0; it may change at any time; it has no destructor.
unsafe impl SharedCell for AtomicU32 {}
// SAFETY: as above.
unsafe impl SharedCell for AtomicU64 {}

/// A slice of atomics, initially zero, that this process shares with its future children.
#[derive(Debug)]
pub struct Shared<T: SharedCell> {
    /// The mapping for reading.
    start: NonNull<T>,
    /// The mapping for writing: the same one, or another of the same memory.
    writing: NonNull<T>,
    len: usize,
    /// The descriptor with which it can be passed to a process that was forked before.
    fd: Option<OwnedFd>,
}

// SAFETY: it is a slice of `Sync` values that it owns; nothing in it belongs to a thread.
unsafe impl<T: SharedCell> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: SharedCell> Sync for Shared<T> {}

impl<T: SharedCell> Shared<T> {
    /// Maps `len` zeros. Pages that are never touched take no memory.
    ///
    /// # Errors
    /// Where the address space or the system's limits do not allow it.
    pub fn new(len: usize) -> io::Result<Self> {
        let bytes = Self::bytes(len).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping touches no existing memory.
        let start = unsafe {
            mmap_anonymous(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                flags,
            )
        }?;
        Ok(Self {
            start: start.cast(),
            writing: start.cast(),
            len,
            fd: None,
        })
    }

    /// As [`Shared::new`], for memory that can be passed to processes that were forked before: see
    /// [`Shared::descriptor`]. Only this process and its future children can write to it.
    ///
    /// # Errors
    /// As [`Shared::new`], and where the system has no descriptor left.
    pub fn passable(len: usize) -> io::Result<Self> {
        let fd = Self::sealable(len)?;
        let start = Self::map(&fd, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        seal(&fd);
        Ok(Self {
            start,
            writing: start,
            len,
            fd: Some(fd),
        })
    }

    /// Maps memory that another process passed, for reading only: a write kills the process.
    ///
    /// # Errors
    /// Where it is not what [`Shared::passable`] makes, of this length.
    pub fn passed(fd: OwnedFd, len: usize) -> io::Result<Self> {
        let bytes = Self::bytes(len).ok_or(io::ErrorKind::OutOfMemory)?;
        let seals = fcntl(&fd, FcntlArg::F_GET_SEALS)?;
        let sealed = SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK);
        let size = u64::try_from(fstat(&fd)?.st_size).unwrap_or_default();
        if !sealed || size < bytes.get() as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let start = Self::map(&fd, len, ProtFlags::PROT_READ)?;
        Ok(Self {
            start,
            writing: start,
            len,
            fd: Some(fd),
        })
    }

    /// The descriptor from which another process maps the same memory with [`Shared::passed`]; `None` where it cannot
    /// be passed.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// As [`Shared::new`], for memory that only this process may write to: it alone has a second, writable mapping
    /// ([`Shared::writing`]), which children do not inherit. The mapping for reading can never be made writable: the
    /// memory is sealed before it is mapped, and its descriptor closed. None of this makes a fork more expensive.
    ///
    /// # Errors
    /// As [`Shared::new`], and where no descriptor is left for a moment.
    pub fn guarded(len: usize) -> io::Result<Self> {
        let mut guarded = Self::guarded_and_passable(len)?;
        guarded.fd = None;
        Ok(guarded)
    }

    /// Like [`Shared::guarded`], with a descriptor that stays open and can be passed to processes that were forked
    /// before: the seal binds them, too.
    ///
    /// # Errors
    /// As [`Shared::new`], and where the system has no descriptor left.
    pub fn guarded_and_passable(len: usize) -> io::Result<Self> {
        let bytes = Self::bytes(len).ok_or(io::ErrorKind::OutOfMemory)?;
        let fd = Self::sealable(len)?;
        let writing = Self::map(&fd, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        // SAFETY: the mapping is the one that was just made.
        unsafe { madvise(writing.cast(), bytes.get(), MmapAdvise::MADV_DONTFORK) }?;
        seal(&fd);
        let start = Self::map(&fd, len, ProtFlags::PROT_READ)?;
        #[cfg(feature = "faults")]
        super::attack::note(start.as_ptr() as usize, bytes.get());
        Ok(Self {
            start,
            writing,
            len,
            fd: Some(fd),
        })
    }

    /// Creates memory with a descriptor. It is sealed against shrinking, so that no mapping can come to lie beyond its
    /// end.
    fn sealable(len: usize) -> io::Result<OwnedFd> {
        let bytes = Self::bytes(len).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = match memfd_create(c"cascade", flags | NOEXEC) {
            // Before Linux 6.3.
            Err(Errno::EINVAL) => memfd_create(c"cascade", flags),
            fd => fd,
        }?;
        ftruncate(&fd, i64::try_from(bytes.get()).map_err(io::Error::other)?)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(fd)
    }

    fn map(fd: &OwnedFd, len: usize, access: ProtFlags) -> io::Result<NonNull<T>> {
        let bytes = Self::bytes(len).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping touches no existing memory; the file is as long, and sealed against being cut.
        let start = unsafe { mmap(None, bytes, access, flags, fd, 0) }?;
        Ok(start.cast())
    }

    /// The cells, for writing. For guarded memory only the process that made it may call this: its children do not have
    /// the mapping.
    pub fn writing(&self) -> &[T] {
        // SAFETY: as for reading, in the owner. What a child runs gets no hold of what the owner writes with.
        unsafe { std::slice::from_raw_parts(self.writing.as_ptr(), self.len) }
    }

    /// Excludes it from the memory of future children, which makes a fork cheaper.
    ///
    /// # Errors
    /// As madvise(2).
    pub fn keep_from_children(&self) -> io::Result<()> {
        if let Some(bytes) = Self::bytes(self.len) {
            // SAFETY: the mapping was made with this length. A child that touches it ends.
            unsafe { madvise(self.start.cast(), bytes.get(), MmapAdvise::MADV_DONTFORK) }?;
        }
        Ok(())
    }

    /// Makes it read-only for this process and its future children.
    ///
    /// # Errors
    /// As mprotect(2).
    pub fn protect(&self) -> io::Result<()> {
        if let Some(bytes) = Self::bytes(self.len) {
            // SAFETY: the mapping was made with this length; a write to it is fatal, not undefined.
            unsafe { mprotect(self.start.cast(), bytes.get(), ProtFlags::PROT_READ) }?;
            #[cfg(feature = "faults")]
            super::attack::note(self.start.as_ptr() as usize, bytes.get());
        }
        Ok(())
    }

    /// The size of the mapping; at least one byte, as mmap(2) wants.
    fn bytes(len: usize) -> Option<NonZeroUsize> {
        NonZeroUsize::new(len.checked_mul(size_of::<T>())?.max(1))
    }
}

impl<T: SharedCell> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `len` zero-initialised cells, is aligned to a page, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: SharedCell> Drop for Shared<T> {
    fn drop(&mut self) {
        if let Some(bytes) = Self::bytes(self.len) {
            // SAFETY: the mappings were made by this type with this length, and no reference to them is left.
            let _ = unsafe { munmap(self.start.cast(), bytes.get()) };
            if self.writing != self.start {
                // SAFETY: as above.
                let _ = unsafe { munmap(self.writing.cast(), bytes.get()) };
            }
        }
    }
}
