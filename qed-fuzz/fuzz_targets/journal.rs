//! Fuzz program: images that a crash left in journal mode.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("journal", bytes));
