//! The memory of this process.

/// Gives back to the system what was allocated once and freed: a fork copies the tables of what a process has.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}
