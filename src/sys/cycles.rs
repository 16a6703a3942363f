//! The processor's time-stamp counter.

/// Cycles of the time-stamp counter since some moment; it counts at a constant rate, whatever the processor's clock
/// does. Nothing on processors that have none, or none that is known here.
#[cfg(target_arch = "x86_64")]
pub fn timestamp() -> Option<u64> {
    // SAFETY: every x86-64 processor has the instruction, and it reads a counter only.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

/// Nothing: this processor has no time-stamp counter that is known here.
#[cfg(not(target_arch = "x86_64"))]
pub fn timestamp() -> Option<u64> {
    None
}
