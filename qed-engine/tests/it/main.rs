//! The engine on real files, in the page cache and past it, beside a model and beside other threads.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a failed unwrap is a failed test, and test disks are small"
)]

mod below;
mod concurrent;
mod errors;
mod event_loop;
mod model;
mod starved;
mod support;
mod turns;
