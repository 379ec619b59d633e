//! See `src/resource.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pillion_fuzz::run("resource", data));
