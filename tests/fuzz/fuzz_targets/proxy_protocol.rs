//! See `src/proxy_protocol.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pillion_fuzz::run("proxy_protocol", data));
