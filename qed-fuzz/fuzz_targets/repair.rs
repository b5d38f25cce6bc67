//! Fuzz program: near-valid images repaired and recovered.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("repair", bytes));
