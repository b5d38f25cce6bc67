//! Fuzz program: conversions from every format to every format.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("convert", bytes));
