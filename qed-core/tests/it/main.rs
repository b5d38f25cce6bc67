//! Tests of qed-core through its public API.

mod model;
mod support;
