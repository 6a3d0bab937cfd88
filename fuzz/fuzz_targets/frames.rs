//! The frames of a WebSocket as they pass. What must hold is in `switchman::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| switchman::fuzzing::frames(bytes));
