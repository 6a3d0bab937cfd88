//! PROXY headers. What must hold is in `switchman::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| switchman::fuzzing::proxy_protocol(bytes));
