//! Which Landlock the kernel has; the rest is the crate's.

/// The version of its interface, from 1 on; 0 where there is none, or it is switched off.
pub fn version() -> u32 {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the call has no other argument, and answers a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0,
            VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}
