//! Fuzz program: dialogues with the NBD server.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("nbd", bytes));
