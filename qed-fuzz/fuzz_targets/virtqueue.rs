//! Fuzz program: rings of a guest and what its disk makes of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| qed_fuzz::fuzz("virtqueue", bytes));
