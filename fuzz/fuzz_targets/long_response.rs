#![no_main]

libfuzzer_sys::fuzz_target!(
    |bytes: &[u8]| cascade_fuzz::invariants::response::long_response(bytes)
);
