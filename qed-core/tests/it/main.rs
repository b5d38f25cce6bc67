//! Tests of qed-core through its public API.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed unwrap is a failed test, and test disks are small"
)]

mod amend;
mod closed;
mod closing;
mod compact;
mod compat;
mod death_edges;
mod device;
mod discard;
mod errors;
mod faults;
mod fill;
mod hand_over;
mod hostile_tables;
mod journal;
mod life_cycle;
mod model;
mod order;
mod panics;
mod process_death;
mod requests;
mod resize;
mod retries;
mod runs;
mod set_backing;
mod space_races;
mod stalled;
mod stress;
mod support;
