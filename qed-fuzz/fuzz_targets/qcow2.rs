//! Fuzz program: QCOW2 images.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("qcow2", bytes));
