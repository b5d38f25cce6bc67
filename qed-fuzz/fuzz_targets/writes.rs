//! Fuzz program: guests that write to near-valid images.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("writes", bytes));
