//! Memory that a process shares with the children it will fork: an anonymous `MAP_SHARED` mapping of atomics.
//!
//! A forked child sees its parent's ordinary memory as it was at the fork; what it must see change lies here. There
//! is one writer (the owner of what it means) and there are many readers, and no lock that a dying process could
//! keep. It also keeps fork(2) cheap: private memory that was touched costs page tables to copy, shared memory does
//! not.
//!
//! Who may write is not left to good manners where it matters ([`Shared::guarded`], [`Shared::protect`]).

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

/// The memory is not to be executed: nix has no name for it.
const NOEXEC: MFdFlags = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);

/// From now on nobody can map the memory to be written; who has done so keeps that. Before Linux 5.1 there is no such seal:
/// then mappings to be read are that until somebody asks for more.
fn seal(fd: &OwnedFd) {
    let seals = SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL;
    let _ = fcntl(fd, FcntlArg::F_ADD_SEALS(seals));
}

/// Types of which all-zero bytes are a value, that may change under a reader, and that need no destructor.
///
/// # Safety
/// All three must hold.
pub unsafe trait SharedCell: Sync {}

// SAFETY: an atomic integer of zero bytes is 0; it may change at any time; it has no destructor.
unsafe impl SharedCell for AtomicU32 {}
// SAFETY: as above.
unsafe impl SharedCell for AtomicU64 {}

/// A slice of atomics, all zero at first, that this process and its later children see the same.
#[derive(Debug)]
pub struct Shared<T: SharedCell> {
    /// Where it is read.
    start: NonNull<T>,
    /// Where it is written: the same place, or another mapping of the same memory.
    writing: NonNull<T>,
    len: usize,
    /// By which it can be handed to a process that was forked before.
    fd: Option<OwnedFd>,
}

// SAFETY: it is a slice of `Sync` values that it owns; nothing in it belongs to a thread.
unsafe impl<T: SharedCell> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: SharedCell> Sync for Shared<T> {}

impl<T: SharedCell> Shared<T> {
    /// Maps `len` zeros. Memory is only taken for what is touched.
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

    /// As [`Shared::new`], for memory that is to be handed to processes that were forked before: see
    /// [`Shared::descriptor`]. Only this process and its later children can write to it.
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

    /// Memory that another process handed over, to be read only: a write to it ends the process.
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

    /// What another process makes the same memory of with [`Shared::passed`]; nothing where it cannot.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// As [`Shared::new`], for what only this process may write: it alone has a second mapping for that
    /// ([`Shared::writing`]), which is not inherited. The one that is read can never be made writable: the memory is
    /// sealed before it is mapped, and its descriptor closed. None of this costs a fork anything.
    ///
    /// # Errors
    /// As [`Shared::new`], and where no descriptor is left for a moment.
    pub fn guarded(len: usize) -> io::Result<Self> {
        let mut guarded = Self::guarded_and_passable(len)?;
        guarded.fd = None;
        Ok(guarded)
    }

    /// The same with a descriptor that stays open, to be handed to processes that were forked before: the seal holds for
    /// them too.
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

    /// Memory with a descriptor. It never becomes shorter: nobody who maps it can be made to touch what is not there.
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

    /// The cells, to be written. Of guarded memory only the process that made it may ask: its children do not have the
    /// mapping.
    pub fn writing(&self) -> &[T] {
        // SAFETY: as for reading, in the owner. What a child runs gets no hold of what the owner writes with.
        unsafe { std::slice::from_raw_parts(self.writing.as_ptr(), self.len) }
    }

    /// From now on children do not inherit it: a fork has less to copy.
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

    /// From now on this process and its children only read here.
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
