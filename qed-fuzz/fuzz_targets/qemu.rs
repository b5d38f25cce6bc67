//! Fuzz program: near-valid images and QEMU.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("qemu", bytes));
