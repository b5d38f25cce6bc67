//! Fuzz program: headers, and every conversion of their shape.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("header", bytes));
