//! The invariants that the property tests have as well, for the targets in fuzz_targets/, each of which gives one of
//! them what libFuzzer makes up.

#[path = "../../tests/invariants/mod.rs"]
pub mod invariants;
