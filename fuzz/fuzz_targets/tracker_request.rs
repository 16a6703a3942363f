#![no_main]

libfuzzer_sys::fuzz_target!(
    |bytes: &[u8]| cascade_fuzz::invariants::formats::tracker_request(bytes)
);
