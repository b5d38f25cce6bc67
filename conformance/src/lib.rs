//! This workspace held against QEMU and against hostile images.
//!
//! There is nothing to call here: the suites are the crate's tests (`tests/it`), and `hostile.toml`
//! is the list of hostile cases that they build.
#![forbid(unsafe_code)]
