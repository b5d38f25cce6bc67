//! Tests of the journal through its public interface, on the test image.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod commit;
mod faults;
mod hostile;
mod recovery;
mod support;
mod together;
