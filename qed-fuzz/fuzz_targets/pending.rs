//! Fuzz program: images with a pending log that says anything.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("pending", bytes));
