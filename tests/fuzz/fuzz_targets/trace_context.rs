//! See `src/trace_context.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pillion_fuzz::run("trace_context", data));
