#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cascade_fuzz::invariants::sessions::blocks(bytes));
