//! Fuzz program: the two copies of the superblock, and the anchor.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("superblock", bytes));
