//! Fuzz program: near-valid images open for reading.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("map", bytes));
