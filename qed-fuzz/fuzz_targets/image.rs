//! Fuzz program: near-valid images to check, reader and writer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("image", bytes));
