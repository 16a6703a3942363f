//! The processor's time-stamp counter.

/// Cycles of the time-stamp counter since some moment; it runs at a constant rate, whatever the processor's frequency.
/// `None` on processors without one that is supported here.
#[cfg(target_arch = "x86_64")]
pub fn timestamp() -> Option<u64> {
    // SAFETY: every x86-64 processor has the instruction, and it reads a counter only.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

/// `None`: no time-stamp counter of this processor is supported here.
#[cfg(not(target_arch = "x86_64"))]
pub fn timestamp() -> Option<u64> {
    None
}
