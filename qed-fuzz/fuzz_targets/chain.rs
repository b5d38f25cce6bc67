//! Fuzz program: folders of images that name each other.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("chain", bytes));
