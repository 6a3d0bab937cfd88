//! Cookies, queries and headers as rules see them. What must hold is in `switchman::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| switchman::fuzzing::inputs(bytes));
