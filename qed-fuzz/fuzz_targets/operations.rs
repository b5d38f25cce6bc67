//! Fuzz program: lists of operations on sound images.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("operations", bytes));
