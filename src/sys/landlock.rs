//! Which version of Landlock the kernel supports; the crate `landlock` does the rest.

/// The Landlock ABI version, from 1 on; 0 where it is missing or disabled.
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
