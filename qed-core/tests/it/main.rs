//! Tests of qed-core through its public API.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed unwrap is a failed test, and test disks are small"
)]

mod hostile_tables;
mod life_cycle;
mod model;
mod requests;
mod set_backing;
mod support;
